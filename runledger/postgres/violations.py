"""What the database refuses becomes an error of ours: in this module and nowhere else.

The order is constraint name, then SQLSTATE, then ``QueryFailed``. The driver's own text may repeat a refused row or the
parameters of a statement. So it is raised ``from None``, which keeps it out of tracebacks (``__context__`` still has it
for a debugger), and ``internal_message`` takes the server's primary message alone.
"""

from collections.abc import Mapping

from runledger.core import errors
from runledger.core.errors import RunledgerError
from runledger.core.workflow_errors import ActiveKeyConflict, WorkflowAlreadyEnqueued, WorkflowSnapshotMissing

_BY_CONSTRAINT: Mapping[str, tuple[type[RunledgerError], str]] = {
    "uq_job_queue_type_idempotency_org": (errors.AlreadyEnqueued, "the idempotency key is already taken"),
    "uq_job_queue_type_idempotency_global": (errors.AlreadyEnqueued, "the idempotency key is already taken"),
    "uq_job_queue_active_key_org": (errors.AlreadyEnqueued, "another live job holds the active key"),
    "uq_job_queue_active_key_global": (errors.AlreadyEnqueued, "another live job holds the active key"),
    "uq_job_queue_schedule_slot": (errors.AlreadyEnqueued, "this slot of the schedule has already fired"),
    "ck_job_queue_idempotency_enqueue_request": (
        errors.RequestSnapshotMissing,
        "a keyed job must carry the snapshot of its request",
    ),
    "uq_workflow_runs_type_idempotency_org": (WorkflowAlreadyEnqueued, "the idempotency key is already taken"),
    "uq_workflow_runs_type_idempotency_global": (WorkflowAlreadyEnqueued, "the idempotency key is already taken"),
    "uq_workflow_runs_active_key_org": (ActiveKeyConflict, "another live run holds the active key"),
    "uq_workflow_runs_active_key_global": (ActiveKeyConflict, "another live run holds the active key"),
    "ck_workflow_runs_idempotency_enqueue_request": (
        WorkflowSnapshotMissing,
        "a keyed run must carry the snapshot of its request",
    ),
    "ck_job_leases_progress": (errors.InvalidProgress, "progress must be 0 <= done <= total"),
    "job_runtime_configs_job_type_fkey": (errors.DefinitionNotFound, "no definition of this job type is stored"),
    "job_schedules_job_type_fkey": (errors.DefinitionNotFound, "no definition of this job type is stored"),
}

_MIGRATE = "run `runledger migrate` (Django: `manage.py migrate`)"
_BY_SQLSTATE: Mapping[str, tuple[type[RunledgerError], str]] = {
    "23505": (errors.UniqueViolation, "a row with this identity already exists"),
    "23503": (errors.RelatedResourceMissing, "something this row refers to does not exist"),
    "23001": (errors.RelatedResourceStillReferenced, "other rows still refer to this one"),
    "23514": (errors.BusinessRuleViolation, "a rule of the database refuses these values"),
    "23502": (errors.RequiredFieldMissing, "a required value is missing"),
    "42501": (errors.PermissionDenied, "the database role lacks a grant for this operation"),
    "25P02": (errors.TransactionAborted, "the transaction has already failed; roll it back first"),
    "25006": (errors.DatabaseUnavailable, "the database is read-only: a standby, or a primary that was demoted"),
    "25P03": (errors.DatabaseUnavailable, "the server ended the connection: its transaction was idle for too long"),
    "25P04": (errors.DatabaseUnavailable, "the server ended the connection: its transaction took too long"),
    "55P03": (errors.LockNotAvailable, "a lock was not granted in time; nothing was written"),
    "40001": (errors.SerializationFailure, "concurrent transactions collided; run the transaction again"),
    "40P01": (errors.SerializationFailure, "concurrent transactions collided; run the transaction again"),
    "42P01": (errors.SchemaMissing, f"the tables of Runledger are not there; {_MIGRATE}"),
    "3F000": (errors.SchemaMissing, f"the schema of Runledger is not there; {_MIGRATE}"),
    "42703": (errors.SchemaBehind, f"a column is missing; {_MIGRATE}"),
    "42704": (errors.SchemaBehind, f"a type is missing; {_MIGRATE}"),
    "42883": (errors.SchemaBehind, f"a function is missing; {_MIGRATE}"),
    "53300": (errors.DatabaseUnavailable, "the database accepts no more connections"),
    "28P01": (errors.DatabaseUnavailable, "the database refused the password"),
    "28000": (errors.DatabaseUnavailable, "the database refused the role"),
    "3D000": (errors.DatabaseUnavailable, "the database does not exist"),
}

_BY_PHRASE: Mapping[str, str] = {
    "password authentication failed": "the database refused the password",
    "no password supplied": "the database wants a password",
    "no pg_hba.conf entry": "the database does not let this host or role in",
    "too many clients": "the database accepts no more connections",
    "too many connections": "the database accepts no more connections",
    "session is read-only": "the database is read-only: a standby, or a primary that was demoted",
    "no more connections": "the database accepts no more connections",
    "remaining connection slots": "the database accepts no more connections",
    "Connection refused": "no server listens there",
    "Is the server running": "no server listens there",
    "could not translate host name": "the host name is not known",
    "failed to resolve host": "the host name is not known",
    "timeout expired": "the server did not answer in time",
    "server does not support SSL": "the server does not speak TLS",
}
"""A connection that fails has no SQLSTATE in the driver; what a person has to know stands in the text only."""

_UNAVAILABLE_CLASSES = ("08", "57P")
_CONNECTION_FAILURES = frozenset(
    {"OperationalError", "InterfaceError", "InternalError", "PoolTimeout", "ConnectionTimeout"}
)


def error_for(driver_error: BaseException) -> RunledgerError:
    """The error of ours that says what ``driver_error`` means; the caller raises it ``from None``.

    Understands psycopg, psycopg2, SQLAlchemy's and Django's wrappers around them.
    """
    original = _unwrap(driver_error)
    sqlstate: str = getattr(original, "sqlstate", None) or getattr(original, "pgcode", None) or ""
    diagnostics = getattr(original, "diag", None)
    constraint: str = getattr(diagnostics, "constraint_name", None) or ""
    primary: str = getattr(diagnostics, "message_primary", None) or str(original)
    named = {"sqlstate": sqlstate, "constraint": constraint}
    places = "".join(f" {name}={value}" for name, value in named.items() if value)
    detail = f"{type(original).__name__}{places}: {' '.join(primary.split())}"
    if constraint in _BY_CONSTRAINT:
        error_class, message = _BY_CONSTRAINT[constraint]
    elif sqlstate in _BY_SQLSTATE:
        error_class, message = _BY_SQLSTATE[sqlstate]
    elif _means_unavailable(original, sqlstate):
        error_class, message = errors.DatabaseUnavailable, _reason_in(str(original))
    else:
        error_class, message = errors.QueryFailed, "the database refused the statement"
    return error_class(message, internal_message=detail)


def _unwrap(error: BaseException) -> BaseException:
    """SQLAlchemy keeps the driver's error in ``orig``, Django in ``__cause__``."""
    for _ in range(4):
        inner = getattr(error, "orig", None) or error.__cause__
        if getattr(error, "sqlstate", None) or getattr(error, "pgcode", None) or inner is None:
            return error
        error = inner
    return error


def _reason_in(text: str) -> str:
    """What a failed connection means, without repeating its text: that may name users, hosts and options."""
    if 'database "' in text and "does not exist" in text:
        return "the database does not exist"
    if 'role "' in text and "does not exist" in text:
        return "the database role does not exist"
    return next((reason for phrase, reason in _BY_PHRASE.items() if phrase in text), "the database cannot be reached")


def _means_unavailable(error: BaseException, sqlstate: str) -> bool:
    """Without a code it is the driver that speaks. An InternalError then: it got other answers than it asked for, such
    as two to a COMMIT while a pooler was going down, so that nobody knows what became of it."""
    if sqlstate:
        return sqlstate.startswith(_UNAVAILABLE_CLASSES)
    return type(error).__name__ in _CONNECTION_FAILURES
