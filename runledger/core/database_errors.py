"""What the database may answer, whatever it was asked."""

from runledger.core.error_tree import ConflictError, ForbiddenError, InternalError, UnavailableError, ValidationError

__all__ = [
    "DatabaseUnavailable",
    "LockNotAvailable",
    "SerializationFailure",
    "TransactionAborted",
    "PermissionDenied",
    "UniqueViolation",
    "RelatedResourceMissing",
    "RelatedResourceStillReferenced",
    "BusinessRuleViolation",
    "RequiredFieldMissing",
    "QueryFailed",
]


class DatabaseUnavailable(UnavailableError):
    """The server cannot be reached, is shutting down, or refuses more connections."""

    code = "db.unavailable"


class LockNotAvailable(UnavailableError):
    """A lock was not granted within ``lock_timeout``; nothing was written."""

    code = "db.lock_not_available"


class SerializationFailure(UnavailableError):
    """Concurrent transactions collided (40001, 40P01); the whole transaction may be run again."""

    code = "db.serialization_failure"


class TransactionAborted(ConflictError):
    """The caller's transaction has already failed; roll it back before using it again."""

    code = "db.transaction_aborted"


class PermissionDenied(ForbiddenError):
    """The role lacks a grant; ``runledger migrate --grants`` prints what each role needs."""

    code = "db.permission_denied"


class UniqueViolation(ConflictError):
    code = "db.unique_violation"


class RelatedResourceMissing(ValidationError):
    code = "db.related_resource_missing"


class RelatedResourceStillReferenced(ValidationError):
    code = "db.related_resource_still_referenced"


class BusinessRuleViolation(ValidationError):
    code = "db.business_rule_violation"


class RequiredFieldMissing(ValidationError):
    code = "db.required_field_missing"


class QueryFailed(InternalError):
    """Any other refusal of the database; the SQLSTATE stands in ``internal_message``."""

    code = "db.query_failed"
