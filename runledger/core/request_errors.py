"""What a request or a registration may get wrong. Nothing was written."""

from runledger.core.error_tree import ValidationError

__all__ = [
    "InvalidIdentifier",
    "InvalidRequest",
    "InvalidPayload",
    "InvalidOutput",
    "InvalidCheckpoint",
    "InvalidProgress",
    "InvalidLeaseDuration",
    "InvalidPagination",
    "UnknownJobType",
    "DisabledJobType",
    "DuplicateJobType",
    "InvalidHandler",
    "InvalidDefinition",
    "InvalidScheduleName",
    "InvalidCron",
    "InvalidJitter",
    "InvalidTimezone",
    "DefinitionNotFoundOrDisabled",
    "ScheduleDefinitionNotFoundOrDisabled",
    "UnsupportedIsolation",
    "TransactionRequired",
    "WorkflowRequeueNotSupported",
]


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
