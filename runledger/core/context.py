"""What a handler sees of its attempt. It decides nothing: what it is told goes, checked, to the attempt's reporter.

One is made for every job, so it only stores; ids, checkpoint and inputs are decoded when somebody looks.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, overload
from uuid import UUID

from runledger.core.errors import InvalidCheckpoint, InvalidOutput, InvalidProgress, InvalidRequest
from runledger.core.gate import clean_text, decode_json, encode_json
from runledger.core.headers import Headers, decode_headers
from runledger.core.jobs import ClaimedJob, JsonValue
from runledger.core.limits import MAX_INT64, check_integer
from runledger.core.operations import JobRuntimeConfig
from runledger.core.states import LogLevel

LOG_MESSAGE_LIMIT: Final = 4_096
LOG_FIELDS_LIMIT: Final = 16_384
LOG_FIELD_LIMIT: Final = 1_024
_UNREAD: Final = object()


class AttemptReporter(Protocol):
    """Takes what a running attempt says, already checked. Raises LeaseLost when the attempt counts no more."""

    @property
    def is_stopping(self) -> bool:
        """Whether the worker wants to end: a long handler should save a checkpoint and return or continue."""
        ...

    def save_progress(self, done: int | None, total: int | None) -> None:
        """Merged with what is stored; None keeps the stored value."""
        ...

    def save_checkpoint(self, checkpoint_text: str) -> None:
        """The JSON text replaces the stored checkpoint."""
        ...

    def write_log(self, level: LogLevel, message: str, fields_text: str) -> None:
        """The line is kept for the job's log; ``fields_text`` is a JSON object."""
        ...

    def read_runtime_config(self, job_type: str) -> JobRuntimeConfig | None:
        """What is stored for this job type now."""
        ...

    def finish(self, connection: object, output_text: str | None) -> None:
        """The attempt is settled as succeeded inside the caller's transaction, and rolls back with it."""
        ...


class JobContext:
    """One attempt of one job, as its handler sees it.

    ``deadline`` is a value of the monotonic ``clock``; ``lease_token`` grows with every claim of the job, so it
    serves as a fencing token towards other systems.
    """

    __slots__ = (
        "_checkpoint",
        "_clock",
        "_config",
        "_headers",
        "_inputs",
        "_inputs_text",
        "_job",
        "_progress",
        "_reporter",
        "deadline",
        "worker_id",
    )

    def __init__(
        self,
        job: ClaimedJob,
        *,
        worker_id: str,
        reporter: AttemptReporter,
        deadline: float,
        clock: Callable[[], float],
        inputs_text: str | None = None,
    ) -> None:
        self._job = job
        self._reporter = reporter
        self._clock = clock
        self._inputs_text = inputs_text
        self._checkpoint: Any = _UNREAD
        self._inputs: Any = _UNREAD
        self._headers: Any = _UNREAD
        self._config: Any = _UNREAD
        self._progress: tuple[int | None, int | None] = (None, None)
        self.worker_id = worker_id
        self.deadline = deadline

    @property
    def job_id(self) -> UUID:
        """The job's id, the same in every attempt and run."""
        return UUID(self._job.job_id)

    @property
    def job_type(self) -> str:
        """The type the job was enqueued with."""
        return self._job.job_type

    @property
    def run_number(self) -> int:
        """1, and one more after each requeue or continuation."""
        return self._job.run_number

    @property
    def attempt(self) -> int:
        """1 for the first attempt of the run."""
        return self._job.attempt

    @property
    def max_attempts(self) -> int:
        """The number of the last attempt there can be in this run."""
        return self._job.max_attempts

    @property
    def lease_token(self) -> int:
        """Grows with every claim of the job."""
        return self._job.lease_token

    @property
    def organization_id(self) -> UUID | None:
        """The tenant; None for a global job."""
        return None if self._job.organization_id is None else UUID(self._job.organization_id)

    @property
    def workflow_run_id(self) -> UUID | None:
        """The workflow run this job is a step of, if it is one."""
        return None if self._job.workflow_run_id is None else UUID(self._job.workflow_run_id)

    @property
    def step_key(self) -> str | None:
        """The key of the step within its workflow run, if it is one."""
        return self._job.step_key

    @property
    def checkpoint(self) -> JsonValue:
        """What was last saved, by this attempt or an earlier one; None when nothing was. Raises InvalidCheckpoint
        when somebody stored what the gate would have refused."""
        if self._checkpoint is _UNREAD:
            text = self._job.checkpoint
            self._checkpoint = None if text is None else decode_json(text, error=InvalidCheckpoint, field="checkpoint")
        return self._checkpoint

    @property
    def inputs(self) -> Mapping[str, JsonValue]:
        """The outputs of the prerequisite steps by step key; empty outside a workflow."""
        if self._inputs is _UNREAD:
            self._inputs = {} if self._inputs_text is None else _decoded_inputs(self._inputs_text)
        inputs: Mapping[str, JsonValue] = self._inputs
        return inputs

    @property
    def headers(self) -> Headers:
        """What the enqueue sent along for middleware; empty without. Raises InvalidRequest when somebody stored what
        the gate would have refused."""
        if self._headers is _UNREAD:
            self._headers = decode_headers(self._job.headers)
        headers: Headers = self._headers
        return headers

    @property
    def is_stopping(self) -> bool:
        """Whether the worker wants to end: a long handler should save a checkpoint and return or continue."""
        return self._reporter.is_stopping

    def remaining_seconds(self) -> float:
        """The seconds left until the deadline; zero when it has passed."""
        return max(0.0, self.deadline - self._clock())

    def runtime_config(self) -> JobRuntimeConfig | None:
        """The runtime config of this job type, read at the first call and the same for the rest of the attempt; None
        when nobody has set one. Raises DatabaseUnavailable when it cannot be read now."""
        if self._config is _UNREAD:
            self._config = self._reporter.read_runtime_config(self._job.job_type)
        config: JobRuntimeConfig | None = self._config
        return config

    def progress(self, done: int | None = None, total: int | None = None) -> None:
        """The job shows this progress; what is omitted keeps its stored value. Raises InvalidProgress when nothing is
        given, or a number is negative, no integer, or done exceeds total, also together with what this attempt said
        before; the lease is intact."""
        if done is None and total is None:
            raise InvalidProgress("progress needs done or total")
        done, total = _progress_number(done, "done"), _progress_number(total, "total")
        last_done, last_total = self._progress
        now_done, now_total = last_done if done is None else done, last_total if total is None else total
        if now_done is not None and now_total is not None and now_done > now_total:
            raise InvalidProgress("done exceeds total")
        self._progress = now_done, now_total
        self._reporter.save_progress(done, total)

    def save_checkpoint(self, value: JsonValue) -> None:
        """The next attempt or run finds ``value`` as its checkpoint. Raises InvalidCheckpoint from the data gate."""
        text = encode_json(value, error=InvalidCheckpoint, field="checkpoint")
        self._reporter.save_checkpoint(text)
        self._job.checkpoint = text
        self._checkpoint = _UNREAD

    @overload
    def log(self, message: str, /, **fields: JsonValue) -> None: ...

    @overload
    def log(self, level: LogLevel | str, message: str, /, **fields: JsonValue) -> None: ...

    def log(self, level: LogLevel | str, message: object = _UNREAD, /, **fields: JsonValue) -> None:
        """A line in the job's log, which ``runledger job logs`` prints: ``log("INFO", "sent", to=address)``. A text
        alone is a message of level INFO. At most 4 KiB, cleaned; fields that are no JSON stand there as text. Raises
        InvalidRequest when the level is none of DEBUG, INFO, WARNING, ERROR."""
        if message is _UNREAD:
            level, message = LogLevel.INFO, level
        try:
            known = LogLevel(level.upper())
        except (ValueError, AttributeError):
            raise InvalidRequest("level must be DEBUG, INFO, WARNING or ERROR") from None
        self._reporter.write_log(known, clean_text(str(message), LOG_MESSAGE_LIMIT), _fields_text(fields))

    def finish(self, connection: object, output: JsonValue = None) -> None:
        """The attempt is settled as succeeded inside the caller's transaction, and rolls back with it. Raises
        InvalidOutput from the data gate, LeaseLost when the attempt counts no more."""
        text = None if output is None else encode_json(output, error=InvalidOutput, field="output")
        self._reporter.finish(connection, text)


def _progress_number(value: object, field: str) -> int | None:
    return None if value is None else check_integer(value, field=field, low=0, high=MAX_INT64, error=InvalidProgress)


def _decoded_inputs(text: str) -> dict[str, JsonValue]:
    inputs = decode_json(text, error=InvalidRequest, field="inputs")
    if not isinstance(inputs, dict):
        raise InvalidRequest("the inputs of the step are not an object")
    return inputs


def _fields_text(fields: Mapping[str, JsonValue]) -> str:
    """The fields as a JSON object. A log line is no reason to fail a job: what the gate refuses becomes text."""
    if not fields:
        return "{}"
    try:
        return encode_json(fields, error=InvalidRequest, limit_bytes=LOG_FIELDS_LIMIT)
    except InvalidRequest:
        shown = {clean_text(name, LOG_FIELD_LIMIT): _shown(value) for name, value in fields.items()}
    try:
        return encode_json(shown, error=InvalidRequest, limit_bytes=LOG_FIELDS_LIMIT)
    except InvalidRequest:
        return '{"fields_omitted":true}'


def _shown(value: object) -> JsonValue:
    try:
        encode_json(value, error=InvalidRequest, limit_bytes=LOG_FIELD_LIMIT)
    except InvalidRequest:
        return clean_text(_text_of(value), LOG_FIELD_LIMIT)
    return value


def _text_of(value: object) -> str:
    try:
        return str(value)
    except Exception:  # a value's __str__ is the user's; a cancellation raised meanwhile must pass
        return f"<{type(value).__name__} without text>"
