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
    """A row with this identity exists (SQLSTATE 23505), by a constraint that has no error of its own."""

    code = "db.unique_violation"


class RelatedResourceMissing(ValidationError):
    """The row refers to one that does not exist (SQLSTATE 23503)."""

    code = "db.related_resource_missing"


class RelatedResourceStillReferenced(ValidationError):
    """Other rows still refer to the one that should go (SQLSTATE 23001)."""

    code = "db.related_resource_still_referenced"


class BusinessRuleViolation(ValidationError):
    """A check of the database refuses these values (SQLSTATE 23514)."""

    code = "db.business_rule_violation"


class RequiredFieldMissing(ValidationError):
    """A value is missing that the database requires (SQLSTATE 23502)."""

    code = "db.required_field_missing"


class QueryFailed(InternalError):
    """Any other refusal of the database; the SQLSTATE stands in ``internal_message``."""

    code = "db.query_failed"
