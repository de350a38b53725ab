"""The catalog refuses what is wrong where it is written."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from runledger.core.catalog import JobCatalog
from runledger.core.definitions import JobDefinition, RetryPolicy
from runledger.core.errors import (
    DisabledJobType,
    DuplicateJobType,
    InvalidDefinition,
    InvalidHandler,
    InvalidIdentifier,
    InvalidPayload,
    UnknownJobType,
)
from runledger.core.failures import DeadLetterReason
from runledger.core.handlers import DeadLetterInfo, dead_letter_hook_type
from runledger.core.requests import JobRequest, encode_request

JOB_ID = "0192f5aa-0000-7000-8000-000000000001"


@dataclass
class Receipt:
    order: int = 0


class Importer:
    """A handler object with a hook that notes what it was told."""

    def __init__(self, job_type: str = "doc.import") -> None:
        self.job_type = job_type
        self.told: list[Any] = []

    def execute(self, context: Any, payload: Receipt) -> Any:
        return payload

    def on_dead_letter(self, context: Any, payload: Any, info: DeadLetterInfo) -> None:
        self.told.append((context, payload, info))


def handle(context: Any, payload: dict[str, Any]) -> Any:
    return payload


def handle_receipt(context: Any, payload: Receipt) -> Any:
    return payload


def test_the_decorator_returns_the_function_itself():
    assert JobCatalog().job("mail.receipt")(handle) is handle


def test_a_type_takes_the_defaults_of_its_catalog_unless_it_names_its_own():
    catalog = JobCatalog(max_attempts=7, timeout_seconds=60, priority=2, queue="slow", crash_budget=5)
    policy = RetryPolicy(factor=3)
    catalog.job("a")(handle)
    catalog.job("b", max_attempts=1, timeout_seconds=9, priority=0, queue="q", version=2, retry=policy, crash_budget=1)(
        handle
    )
    assert catalog.definitions == (
        JobDefinition("a", max_attempts=7, timeout_seconds=60, priority=2, queue="slow", crash_budget=5),
        JobDefinition("b", 2, max_attempts=1, timeout_seconds=9, priority=0, queue="q", retry=policy, crash_budget=1),
    )


def test_job_types_are_sorted():
    catalog = JobCatalog()
    for job_type in ("b", "c", "a"):
        catalog.job(job_type)(handle)
    assert catalog.job_types == ("a", "b", "c")
    assert "a" in catalog
    assert "d" not in catalog
    assert 7 not in catalog


def test_a_duplicate_is_refused_when_it_is_written():
    catalog = JobCatalog()
    catalog.job("a")(handle)
    with pytest.raises(DuplicateJobType):
        catalog.job("a")
    with pytest.raises(DuplicateJobType):
        catalog.register(Importer("a"))


@pytest.mark.parametrize(
    "settings",
    [{"max_attempts": 0}, {"timeout_seconds": 10**9}, {"priority": "1"}, {"version": 0}, {"crash_budget": 0},
     {"enabled": 1}, {"retry": RetryPolicy(factor=0)}, {"retry": "often"}],
)  # fmt: skip
def test_a_bad_setting_is_refused_when_it_is_written(settings):
    with pytest.raises(InvalidDefinition):
        JobCatalog().job("a", **settings)
    if settings.keys() & {"max_attempts", "timeout_seconds", "priority", "crash_budget", "retry"}:
        with pytest.raises(InvalidDefinition):
            JobCatalog(**settings)


def test_bad_names_are_refused_when_they_are_written():
    for job_type in ("", " a", "x" * 201, None):
        with pytest.raises(InvalidIdentifier, match=r"^job_type "):
            JobCatalog().job(job_type)
    with pytest.raises(InvalidIdentifier, match=r"^queue "):
        JobCatalog().job("a", queue="")


async def _coroutine(context: Any, payload: Any) -> None: ...


async def _async_generator(context: Any, payload: Any) -> Any:
    yield 1


def _generator(context: Any, payload: Any) -> Any:
    yield 1


class _AsyncCallable:
    async def __call__(self, context: Any, payload: Any) -> None: ...


@pytest.mark.parametrize(
    "function",
    [lambda: None, lambda payload: None, lambda context, payload, more: None, lambda *, context, payload: None,
     _coroutine, _async_generator, _generator, _AsyncCallable(), partial(_coroutine), dict, Importer, None, 7, "handle",
     Importer().on_dead_letter],
)  # fmt: skip
def test_what_cannot_be_called_with_context_and_payload_is_refused(function):
    catalog = JobCatalog()
    with pytest.raises(InvalidHandler):
        catalog.job("a")(function)
    assert catalog.job_types == ()


def test_partials_methods_and_callable_objects_are_handlers():
    class Callable_:
        def __call__(self, context: Any, payload: Any) -> Any:
            return payload

    catalog = JobCatalog()
    importer = Importer()
    for job_type, function in (
        ("partial", partial(lambda extra, context, payload: payload, 1)),
        ("method", importer.execute),
        ("object", Callable_()),
        ("default", lambda context, payload, more=1: payload),
    ):
        catalog.job(job_type)(function)
        assert catalog.handler(job_type).call(None, 5) == 5
    assert catalog.request(importer.execute).job_type == "method"


def test_a_request_names_its_type_or_its_function():
    catalog = JobCatalog()
    catalog.job("mail.receipt")(handle)
    assert catalog.request("mail.receipt", {"order": 7}) == JobRequest("mail.receipt", {"order": 7})
    assert catalog.request(handle, priority=3, tags=["a"]) == JobRequest("mail.receipt", {}, priority=3, tags=["a"])


def test_a_request_for_what_the_catalog_does_not_have_is_refused():
    catalog = JobCatalog()
    for unknown in ("mail.receipt", handle, None, [], lambda: None):
        with pytest.raises(UnknownJobType):
            catalog.request(unknown)
    for job_type in ("a", "b"):
        catalog.job(job_type)(handle)
    with pytest.raises(UnknownJobType, match="several"):
        catalog.request(handle)


def test_a_disabled_type_is_served_but_not_requested():
    catalog = JobCatalog()
    catalog.job("a", enabled=False)(handle)
    assert catalog.handler("a").call is handle
    with pytest.raises(DisabledJobType):
        catalog.request("a")


def test_a_payload_is_checked_against_its_type_when_it_is_requested():
    catalog = JobCatalog()
    catalog.job("mail.receipt")(handle_receipt)
    for payload in (Receipt(7), {"order": 7}):
        assert catalog.request(handle_receipt, payload).payload == {"order": 7}
    assert catalog.request(handle_receipt).payload == {}
    with pytest.raises(InvalidPayload, match=r"^payload\.order must be int$"):
        catalog.request(handle_receipt, {"order": "7"})
    assert encode_request(catalog.request(handle_receipt, Receipt(7))).payload == '{"order":7}'


def test_a_retry_delay_belongs_to_one_type_and_code():
    catalog = JobCatalog()
    catalog.job("a")(handle)
    catalog.job("b")(handle)
    catalog.retry_delay("a", "mail.busy", timedelta(minutes=1))
    catalog.retry_delay("a", "mail.down", 2.5)
    assert catalog.handler("a").definition.retry.overrides == {"mail.busy": 60.0, "mail.down": 2.5}
    assert catalog.handler("b").definition.retry.overrides == {}


def test_a_bad_retry_delay_is_refused():
    catalog = JobCatalog()
    catalog.job("a")(handle)
    catalog.retry_delay("a", "mail.busy", 1)
    with pytest.raises(UnknownJobType):
        catalog.retry_delay("b", "mail.busy", 1)
    for code, delay in (("mail.busy", 2), ("", 1), ("x", 0), ("x", -1), ("x", timedelta.max), ("x", True), ("x", "1")):
        with pytest.raises(InvalidDefinition):
            catalog.retry_delay("a", code, delay)


def test_a_hook_runs_as_a_job_of_its_own_type():
    catalog, importer = JobCatalog(max_attempts=2, timeout_seconds=40, queue="docs"), Importer()
    catalog.register(importer, priority=4, version=3)
    hook_type = dead_letter_hook_type("doc.import")
    assert catalog.job_types == ("doc.import", "doc.import.on_dead_letter") == ("doc.import", hook_type)
    assert catalog.handler("doc.import").definition.has_dead_letter_hook
    assert catalog.handler("doc.import").on_dead_letter is not None
    assert catalog.handler(hook_type).definition == JobDefinition(
        hook_type, 3, max_attempts=5, timeout_seconds=40, priority=4, queue="docs"
    )


def test_a_hook_gets_the_original_payload_as_raw_json_and_why_it_died():
    catalog, importer, context = JobCatalog(), Importer(), object()
    catalog.register(importer)
    hook = catalog.handler(dead_letter_hook_type("doc.import"))
    payload = {
        "job_id": JOB_ID, "run_number": 2, "attempt": 3, "code": "doc.bad", "message": "no pages",
        "reason": "ATTEMPTS_EXHAUSTED", "payload": {"order": "not a receipt"},
    }  # fmt: skip
    hook.call(context, hook.payload_type.from_json(payload))
    info = DeadLetterInfo(UUID(JOB_ID), 2, 3, "doc.bad", "no pages", DeadLetterReason.ATTEMPTS_EXHAUSTED)
    assert importer.told == [(context, {"order": "not a receipt"}, info)]


@pytest.mark.parametrize("payload", [None, [], {}, {"job_id": "x"}, {"job_id": JOB_ID, "run_number": "?"}])
def test_a_hook_payload_that_describes_no_dead_letter_is_refused(payload):
    catalog = JobCatalog()
    catalog.register(Importer())
    with pytest.raises(InvalidPayload):
        catalog.handler("doc.import.on_dead_letter").call(None, payload)


def test_a_handler_object_may_do_without_a_hook():
    class Plain:
        job_type = "a"

        def execute(self, context: Any, payload: Any) -> Any:
            return payload

    catalog, handler = JobCatalog(), Plain()
    catalog.register(handler)
    assert catalog.job_types == ("a",)
    assert catalog.request(handler).job_type == "a"


def test_a_type_with_a_hook_leaves_room_for_the_name_of_the_hook():
    catalog = JobCatalog()
    catalog.register(Importer("x" * 185))
    assert max(map(len, catalog.job_types)) == 200
    with pytest.raises(InvalidIdentifier, match="on_dead_letter"):
        JobCatalog().register(Importer("x" * 186))


def test_a_refused_registration_leaves_nothing_behind():
    catalog = JobCatalog()
    catalog.job("doc.import.on_dead_letter")(handle)
    with pytest.raises(DuplicateJobType):
        catalog.register(Importer())
    assert catalog.job_types == ("doc.import.on_dead_letter",)


def test_a_handler_object_without_its_parts_is_refused():
    class NoExecute:
        job_type = "a"

    class BadHook(Importer):
        def on_dead_letter(self, context: Any) -> None: ...  # type: ignore[override]

    class AsyncHook(Importer):
        async def on_dead_letter(self, context: Any, payload: Any, info: Any) -> None: ...  # type: ignore[override]

    for handler in (NoExecute(), object(), None, Importer, BadHook(), AsyncHook()):
        with pytest.raises(InvalidHandler):
            JobCatalog().register(handler)


def test_a_handler_that_cannot_be_hashed_is_found_by_identity():
    @dataclass
    class Unhashable:
        job_type: str = "a"

        def execute(self, context: Any, payload: Any) -> None: ...

    catalog, handler = JobCatalog(), Unhashable()
    catalog.register(handler)
    assert catalog.request(handler).job_type == "a"
