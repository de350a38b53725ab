"""What the stored state may answer to a request that is right in itself."""

from typing import NamedTuple

from runledger.core.error_tree import ConflictError, ForbiddenError, InternalError, NotFoundError, UnavailableError

__all__ = [
    "FieldDifference",
    "IdempotencyConflict",
    "RequestSnapshotMissing",
    "IdempotencyRowMissing",
    "AlreadyEnqueued",
    "InvalidStateTransition",
    "CancellationNotQuiesced",
    "StateChangedConcurrently",
    "JobNotFound",
    "DefinitionNotFound",
    "ScheduleNotFound",
    "LeaseLost",
    "StoredValueInvalid",
    "WaitTimedOut",
]


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
    """The idempotency key, or the slot of the schedule, belongs to a job that another transaction stored meanwhile."""

    code = "job.already_enqueued"


class InvalidStateTransition(ConflictError):
    """The job is not in a status from which this transition starts."""

    code = "job.invalid_state_transition"


class CancellationNotQuiesced(ConflictError):
    """The cancelled attempt may still be running: nobody has said that it ended, and its lease has not ended either."""

    code = "job.cancellation_not_quiesced"


class StateChangedConcurrently(ConflictError):
    """The job moved on during every bounded try; the same call may succeed now."""

    code = "job.concurrent_change"


class JobNotFound(NotFoundError):
    """No job has this id in the given scope, or the text is no id."""

    code = "job.not_found"


class DefinitionNotFound(NotFoundError):
    """No definition of this job type is stored: no worker has synchronised it yet."""

    code = "job.definition_not_found"


class ScheduleNotFound(NotFoundError):
    """No schedule of this name is stored."""

    code = "job_schedule.not_found"


class LeaseLost(ForbiddenError):
    """The lease is not held any more: it ended, was taken back, or belongs to another attempt. Nothing was written."""

    code = "job.lease_owner_mismatch"


class StoredValueInvalid(InternalError):
    """A stored row does not decode; somebody wrote it past the library."""

    code = "job.stored_value_invalid"


class WaitTimedOut(UnavailableError):
    """The job had not ended when the caller's patience did; the job itself goes on."""

    code = "job.wait_timed_out"
