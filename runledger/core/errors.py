"""Every error a caller can meet, in one tree, each with a stable dotted ``code``.

    RunledgerError
    ├── ConflictError        the stored state disagrees with the request; reading it again may help
    ├── ValidationError      the request is wrong as it stands; nothing was written
    ├── NotFoundError        what the request names does not exist in the given scope
    ├── ForbiddenError       the caller does not hold the right it needs (a lease, a grant)
    ├── UnavailableError     the database cannot be used now; the same call may succeed later
    ├── ConfigurationError   the program is set up wrongly; a person has to change something
    └── InternalError        stored data or the library contradicts itself

``str(error)`` is safe to show to a client: it never contains payloads, DSNs or SQL. What an operator needs
stands in ``internal_message`` and is meant for logs only.
"""

from typing import ClassVar, NamedTuple


class RunledgerError(Exception):
    """The root. ``code`` is stable across releases; ``hint`` names what helps, when something does."""

    code: ClassVar[str] = "runledger.error"
    category: ClassVar[str] = "internal"

    def __init__(self, message: str, internal_message: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.internal_message = internal_message
        self.hint = hint

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={str(self)!r})"


class ConflictError(RunledgerError):
    code: ClassVar[str] = "runledger.conflict"
    category: ClassVar[str] = "conflict"


class ValidationError(RunledgerError):
    code: ClassVar[str] = "runledger.invalid"
    category: ClassVar[str] = "validation"


class NotFoundError(RunledgerError):
    code: ClassVar[str] = "runledger.not_found"
    category: ClassVar[str] = "not_found"


class ForbiddenError(RunledgerError):
    code: ClassVar[str] = "runledger.forbidden"
    category: ClassVar[str] = "forbidden"


class UnavailableError(RunledgerError):
    code: ClassVar[str] = "runledger.unavailable"
    category: ClassVar[str] = "unavailable"


class ConfigurationError(RunledgerError):
    code: ClassVar[str] = "runledger.configuration"
    category: ClassVar[str] = "configuration"


class InternalError(RunledgerError):
    code: ClassVar[str] = "runledger.internal"
    category: ClassVar[str] = "internal"


# -- what a request may get wrong -------------------------------------------------------------------------


class InvalidIdentifier(ValidationError):
    """A job type, queue, step key, schedule name or key is empty, padded, too long or not printable."""

    code = "job.invalid_identifier"


class InvalidRequest(ValidationError):
    """A number, time or option of a request is outside its limits; the message names the field."""

    code = "job.invalid_request"


class InvalidPayload(ValidationError):
    """The payload does not pass the data gate, or does not fit the type its handler declares."""

    code = "job.invalid_payload"


class InvalidOutput(ValidationError):
    """What a handler returned cannot be stored as JSON within the limits."""

    code = "job.invalid_output"


class InvalidCheckpoint(ValidationError):
    """The checkpoint cannot be stored as JSON within the limits."""

    code = "job.invalid_checkpoint"


class InvalidProgress(ValidationError):
    """Progress is negative, or done exceeds total after merging with the stored values. The lease is intact."""

    code = "job.invalid_progress"


class InvalidLeaseDuration(ValidationError):
    """A lease must last longer than zero seconds."""

    code = "job.invalid_lease_duration"


class InvalidPagination(ValidationError):
    """A page holds 1 to 1,000 rows; checked before any SQL."""

    code = "job.invalid_pagination"


class UnknownJobType(ValidationError):
    """The catalog has no job of this type."""

    code = "catalog.unknown_job_type"


class DisabledJobType(ValidationError):
    """The catalog declares this job type with ``enabled=False``."""

    code = "catalog.disabled_job_type"


class DuplicateJobType(ValidationError):
    """The catalog already has a handler for this job type."""

    code = "catalog.duplicate_job_type"


class InvalidHandler(ValidationError):
    """What was registered cannot be called as a handler."""

    code = "catalog.invalid_handler"


class InvalidDefinition(ValidationError):
    """A setting of a job type is outside its limits; the message names the setting."""

    code = "catalog.invalid_definition"


class InvalidScheduleName(ValidationError):
    """The name of a schedule is empty, padded, too long or not printable."""

    code = "job_schedule.invalid_name"


class InvalidCron(ValidationError):
    """The cron expression does not parse, is outside the accepted grammar, or never fires twice."""

    code = "job_schedule.invalid_cron"


class InvalidJitter(ValidationError):
    """The jitter of a schedule is not a whole number of seconds from 0 to 86,400."""

    code = "job_schedule.invalid_jitter"


class InvalidTimezone(ValidationError):
    """The time zone of a schedule is not an IANA name that is known on this machine."""

    code = "job_schedule.invalid_timezone"


class DefinitionNotFoundOrDisabled(ValidationError):
    """No enabled definition of this job type is stored: it was never synchronised, or somebody disabled it."""

    code = "job.definition_not_found_or_disabled"


class ScheduleDefinitionNotFoundOrDisabled(DefinitionNotFoundOrDisabled):
    """A schedule cannot fire: its job type has no stored definition, or somebody disabled it."""

    code = "job_schedule.definition_not_found_or_disabled"


class UnsupportedIsolation(ValidationError):
    """A keyed enqueue decides after a lock wait and needs READ COMMITTED."""

    code = "job.enqueue_idempotency_unsupported_isolation"


class TransactionRequired(ValidationError):
    """This operation takes several statements that must commit together; the connection is in autocommit."""

    code = "db.transaction_required"


class WorkflowRequeueNotSupported(ValidationError):
    """A job that belongs to a workflow run is not requeued alone; the run is recovered instead."""

    code = "job.workflow_requeue_not_supported"


# -- what the stored state may answer ---------------------------------------------------------------------


class FieldDifference(NamedTuple):
    """One field of an idempotent request that differs: canonical JSON text of both sides, cut to 200 characters."""

    field: str
    stored: str
    requested: str


class IdempotencyConflict(ConflictError):
    """The key already belongs to a different request; ``differences`` says where they differ."""

    code = "job.idempotency_conflict"

    def __init__(self, message: str, differences: tuple[FieldDifference, ...] = ()) -> None:
        fields = ", ".join(difference.field for difference in differences)
        super().__init__(f"{message} (differs in: {fields})" if fields else message)
        self.differences = differences


class RequestSnapshotMissing(ConflictError):
    """The keyed row carries no snapshot of its request, so a retry cannot be compared with it."""

    code = "job.legacy_idempotency_snapshot_missing"


class IdempotencyRowMissing(InternalError):
    """The key was taken, yet no row holds it: it came and went during every bounded try."""

    code = "job.idempotency_conflict_missing_existing"


class AlreadyEnqueued(ConflictError):
    code = "job.already_enqueued"


class InvalidStateTransition(ConflictError):
    """The job is not in a status from which this transition starts."""

    code = "job.invalid_state_transition"


class CancellationNotQuiesced(ConflictError):
    """The cancelled attempt may still be running; its lease has not ended yet."""

    code = "job.cancellation_not_quiesced"


class StateChangedConcurrently(ConflictError):
    """The job moved on during every bounded try; the same call may succeed now."""

    code = "job.concurrent_change"


class JobNotFound(NotFoundError):
    code = "job.not_found"


class DefinitionNotFound(NotFoundError):
    code = "job.definition_not_found"


class ScheduleNotFound(NotFoundError):
    code = "job_schedule.not_found"


class LeaseLost(ForbiddenError):
    """The lease is not held any more: it ended, was taken back, or belongs to another attempt. Nothing was written."""

    code = "job.lease_owner_mismatch"


class StoredValueInvalid(InternalError):
    """A stored row does not decode; somebody wrote it past the library."""

    code = "job.stored_value_invalid"


# -- what the database may answer -------------------------------------------------------------------------


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


class WaitTimedOut(UnavailableError):
    """The job had not ended when the caller's patience did; the job itself goes on."""

    code = "job.wait_timed_out"


class UnsupportedServer(ConfigurationError):
    """PostgreSQL is older than 14."""

    code = "db.unsupported_version"


class InvalidDatabaseUrl(ConfigurationError):
    """The database URL does not parse; the text never repeats it."""

    code = "db.invalid_url"


# -- schema -----------------------------------------------------------------------------------------------


class SchemaMissing(ConfigurationError):
    code = "schema.missing"


class SchemaBehind(ConfigurationError):
    code = "schema.behind"


class SchemaAhead(ConfigurationError):
    code = "schema.ahead"


class SchemaChanged(ConfigurationError):
    """A migration that was applied differs from the one in this package."""

    code = "schema.changed"


class ConstraintNotValidated(ConfigurationError):
    """A constraint the library relies on is missing or was never validated."""

    code = "schema.constraint_not_validated"


# -- set-up -----------------------------------------------------------------------------------------------


class InvalidConfiguration(ConfigurationError):
    """A setting does not parse or is outside its limits; the message names the variable or option."""

    code = "config.invalid_value"


class AppNotImportable(ConfigurationError):
    """``MODULE:ATTR`` cannot be imported; the message carries the true exception and its line."""

    code = "config.app_not_importable"
