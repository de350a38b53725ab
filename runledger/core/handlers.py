"""What was registered for a job type, and the follow-up job that runs a handler's dead-letter hook.

A hook is a job of its own type, enqueued in the transaction that dead-letters: delivered at least once, retried like
any job, whoever dead-lettered.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

from runledger.core.context import JobContext
from runledger.core.definitions import JobDefinition, dead_letter_hook_type
from runledger.core.errors import InvalidHandler, InvalidPayload
from runledger.core.failures import DeadLetterReason
from runledger.core.jobs import JsonValue
from runledger.core.payloads import PLAIN_PAYLOAD, PayloadType

HOOK_MAX_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class DeadLetterInfo:
    """Why a job went to the dead letters: its last failure, and which rule ended it."""

    job_id: UUID
    run_number: int
    attempt: int
    code: str
    message: str
    reason: DeadLetterReason


HandlerFunction = Callable[[JobContext, Any], Any]
DeadLetterHook = Callable[[JobContext, JsonValue, DeadLetterInfo], None]


class JobHandler(Protocol):
    """A handler as an object. It may also have ``on_dead_letter(context, payload, info)``."""

    @property
    def job_type(self) -> str:
        """The type it handles."""
        ...

    def execute(self, context: JobContext, payload: Any) -> Any:
        """What ``@catalog.job`` decorates, as a method."""
        ...


@dataclass(frozen=True, slots=True)
class RegisteredHandler:
    """What runs a job type. ``call`` takes the context and the payload as ``payload_type`` made it."""

    job_type: str
    call: HandlerFunction
    payload_type: PayloadType
    definition: JobDefinition
    on_dead_letter: DeadLetterHook | None = None


def hook_handler(handler: RegisteredHandler, hook: DeadLetterHook) -> RegisteredHandler:
    """The handler of the follow-up job. Its payload is an object of job_id, run_number, attempt, code, message, reason
    and the original payload; the hook gets the latter as raw JSON, so that cleanup runs for payloads nobody can read.
    """

    def call(context: JobContext, payload: JsonValue) -> None:
        hook(context, payload.get("payload") if isinstance(payload, dict) else None, _info(payload))

    original = handler.definition
    definition = JobDefinition(
        job_type=dead_letter_hook_type(handler.job_type),
        version=original.version,
        max_attempts=HOOK_MAX_ATTEMPTS,
        timeout_seconds=original.timeout_seconds,
        priority=original.priority,
        queue=original.queue,
    )
    return RegisteredHandler(definition.job_type, call, PLAIN_PAYLOAD, definition)


def _info(payload: JsonValue) -> DeadLetterInfo:
    if not isinstance(payload, Mapping):
        raise InvalidPayload("payload is not the description of a dead letter")
    try:
        return DeadLetterInfo(
            job_id=UUID(payload["job_id"]),
            run_number=int(payload["run_number"]),
            attempt=int(payload["attempt"]),
            code=str(payload["code"]),
            message=str(payload["message"]),
            reason=DeadLetterReason(payload["reason"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InvalidPayload("payload is not the description of a dead letter") from error


def check_callable(function: object, *, arity: int, name: str) -> Callable[..., Any]:
    """The function, callable with exactly ``arity`` positional arguments and doing its work when called.

    Raises InvalidHandler for coroutine functions, generators, classes and other parameters.
    """
    if not callable(function) or isinstance(function, type):
        raise InvalidHandler(f"{name} must be a function or a method")
    for candidate in (function, type(function).__call__):
        if inspect.iscoroutinefunction(candidate) or inspect.isasyncgenfunction(candidate):
            raise InvalidHandler(f"{name} must be a synchronous function, not async")
        if inspect.isgeneratorfunction(candidate):
            raise InvalidHandler(f"{name} must return its result, not yield")
    try:
        inspect.signature(function).bind(*(None,) * arity)
    except (TypeError, ValueError, NameError) as error:
        wanted = "(context, payload)" if arity == 2 else "(context, payload, info)"
        raise InvalidHandler(f"{name} must take {wanted}: {error}") from error
    return function
