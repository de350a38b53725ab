"""One handler, called as a worker calls it, with a real context and without a database."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from runledger.core.context import JobContext
from runledger.core.errors import InvalidCheckpoint, InvalidOutput, InvalidPayload
from runledger.core.failures import Continue, Snooze
from runledger.core.gate import decode_json, encode_json
from runledger.core.handlers import JobHandler
from runledger.core.jobs import ClaimedJob, JsonValue
from runledger.core.operations import JobRuntimeConfig
from runledger.core.payloads import payload_type_of
from runledger.core.states import LogLevel


@dataclass(slots=True)
class HandlerRun:
    """What a handler returned and said. ``result`` is its output as JSON, or the Snooze or Continue it returned;
    ``finished`` holds the connections it finished its job on."""

    result: Any = None
    progress: tuple[int | None, int | None] = (None, None)
    checkpoint: JsonValue = None
    logs: list[tuple[LogLevel, str, JsonValue]] = field(default_factory=list)
    finished: list[object] = field(default_factory=list)


class _Recorder:
    """Keeps what an attempt says."""

    def __init__(self, run: HandlerRun, is_stopping: bool, config: Mapping[str, JsonValue] | None) -> None:
        self._run = run
        self._config = config
        self._is_stopping = is_stopping

    @property
    def is_stopping(self) -> bool:
        return self._is_stopping

    def save_progress(self, done: int | None, total: int | None) -> None:
        before_done, before_total = self._run.progress
        self._run.progress = (before_done if done is None else done, before_total if total is None else total)

    def save_checkpoint(self, checkpoint_text: str) -> None:
        self._run.checkpoint = decode_json(checkpoint_text, error=InvalidCheckpoint)

    def write_log(self, level: LogLevel, message: str, fields_text: str) -> None:
        self._run.logs.append((level, message, decode_json(fields_text, error=InvalidPayload)))

    def read_runtime_config(self, job_type: str) -> JobRuntimeConfig | None:
        if self._config is None:
            return None
        now = datetime.now(UTC)
        return JobRuntimeConfig(job_type, dict(self._config), 1, 1, None, None, now, now)

    def finish(self, connection: object, output_text: str | None) -> None:
        self._run.finished.append(connection)
        self._run.result = None if output_text is None else decode_json(output_text, error=InvalidOutput)


def run_job(
    handler: Callable[[JobContext, Any], Any] | JobHandler,
    payload: Any = None,
    *,
    job_type: str = "test.job",
    job_id: UUID | None = None,
    attempt: int = 1,
    max_attempts: int = 3,
    run_number: int = 1,
    timeout_seconds: int = 300,
    organization_id: UUID | None = None,
    checkpoint: JsonValue = None,
    inputs: Mapping[str, JsonValue] | None = None,
    workflow_run_id: UUID | None = None,
    step_key: str | None = None,
    runtime_config: Mapping[str, JsonValue] | None = None,
    worker_id: str = "test",
    is_stopping: bool = False,
) -> HandlerRun:
    """What the handler returned and said when it ran once with this payload. Keywords are what its context shows.

    Payload, checkpoint, inputs and output pass the same gate as in production, so what is no JSON, or does not fit the
    handler's annotation, is refused here too: raises InvalidPayload, InvalidCheckpoint, InvalidOutput. What the handler
    raises, this raises. Timeouts are not enforced; ``context.deadline`` is real.
    """
    call = handler if callable(handler) else handler.execute
    payload_type = payload_type_of(call)
    text = encode_json(payload_type.to_json({} if payload is None else payload), error=InvalidPayload)
    job = ClaimedJob(
        job_id=str(job_id or uuid4()),
        lease_token=1,
        job_type=job_type,
        run_number=run_number,
        attempt=attempt,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        payload=text,
        checkpoint=None if checkpoint is None else encode_json(checkpoint, error=InvalidCheckpoint),
        organization_id=None if organization_id is None else str(organization_id),
        workflow_run_id=None if workflow_run_id is None else str(workflow_run_id),
        step_key=step_key,
        is_expired=False,
    )
    run = HandlerRun(checkpoint=checkpoint)
    context = JobContext(
        job,
        worker_id=worker_id,
        reporter=_Recorder(run, is_stopping, runtime_config),
        deadline=time.monotonic() + timeout_seconds,
        clock=time.monotonic,
        inputs_text=encode_json(dict(inputs or {}), error=InvalidPayload),
    )
    returned = call(context, payload_type.from_json(decode_json(text, error=InvalidPayload)))
    if not run.finished:
        run.result = _as_stored(returned)
    return run


def _as_stored(returned: Any) -> Any:
    if returned is None or isinstance(returned, Snooze | Continue):
        return returned
    return decode_json(encode_json(returned, error=InvalidOutput, field="output"), error=InvalidOutput)
