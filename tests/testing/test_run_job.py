"""A handler called alone meets a real context and the gates of production."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from runledger import InvalidOutput, InvalidPayload, InvalidProgress, JobContext, LogLevel, Snooze
from runledger.testing import run_job

ORGANIZATION = UUID("00000000-0000-4000-8000-000000000007")


@dataclass
class Order:
    number: int


def test_it_returns_what_the_handler_returned_as_json() -> None:
    def handler(context: JobContext, payload: dict[str, Any]) -> Any:
        return {"attempt": context.attempt, "to": payload["to"], "pair": (1, 2)}

    assert run_job(handler, {"to": "ada"}, attempt=2).result == {"attempt": 2, "to": "ada", "pair": [1, 2]}


def test_the_context_shows_what_was_asked_for() -> None:
    def handler(context: JobContext, payload: dict[str, Any]) -> Any:
        assert context.organization_id == ORGANIZATION
        assert 0 < context.remaining_seconds() <= 9
        assert (context.max_attempts, context.run_number, context.is_stopping) == (5, 2, True)
        return [context.checkpoint, dict(context.inputs), context.job_type]

    run = run_job(
        handler,
        job_type="a.type",
        organization_id=ORGANIZATION,
        timeout_seconds=9,
        max_attempts=5,
        run_number=2,
        is_stopping=True,
        checkpoint={"page": 3},
        inputs={"crawl": [1]},
    )

    assert run.result == [{"page": 3}, {"crawl": [1]}, "a.type"]


def test_it_keeps_what_the_handler_said() -> None:
    def handler(context: JobContext, payload: dict[str, Any]) -> None:
        context.progress(done=1, total=4)
        context.progress(done=2)
        context.save_checkpoint({"at": context.checkpoint or 0})
        context.log("info", "half way", page=2)

    run = run_job(handler)

    assert run.progress == (2, 4)
    assert run.checkpoint == {"at": 0}
    assert run.logs == [(LogLevel.INFO, "half way", {"page": 2})]


def test_a_payload_arrives_as_its_type() -> None:
    def handler(context: JobContext, payload: Order) -> int:
        return payload.number + 1

    assert run_job(handler, {"number": 1}).result == 2
    assert run_job(handler, Order(2)).result == 3
    with pytest.raises(InvalidPayload, match="number"):
        run_job(handler, {"number": "x"})


def test_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidPayload):
        run_job(lambda context, payload: None, {"when": timedelta()})
    with pytest.raises(InvalidOutput):
        run_job(lambda context, payload: timedelta())
    with pytest.raises(InvalidProgress):
        run_job(lambda context, payload: context.progress(done=2, total=1))


def test_exceptions_and_wishes_come_through() -> None:
    def fails(context: JobContext, payload: Any) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_job(fails)
    assert isinstance(run_job(lambda context, payload: Snooze(timedelta(minutes=5))).result, Snooze)


def test_a_job_finished_by_its_handler_has_that_output() -> None:
    connection = object()

    def handler(context: JobContext, payload: Any) -> None:
        context.finish(connection, {"done": True})

    run = run_job(handler)

    assert (run.result, run.finished) == ({"done": True}, [connection])


def test_a_handler_object_runs_too() -> None:
    class Handler:
        job_type = "a.type"

        def execute(self, context: JobContext, payload: Order) -> int:
            return payload.number

    assert run_job(Handler(), {"number": 7}).result == 7
