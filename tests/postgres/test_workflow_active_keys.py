"""One live run for each active key: who gets it, who is answered with its holder, and when it is free again."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import psycopg
import pytest
from postgres.conftest import Connect
from postgres.observing import count, scalar, until_blocked
from postgres.workflow_graphs import TYPE, Connection, a_workflow, claim_steps, enqueue, fail, run_of, succeed

from runledger.core import workflow_errors as errors
from runledger.core.errors import InvalidIdentifier
from runledger.core.states import WorkflowRunStatus
from runledger.core.workflows import EnqueuedWorkflowRun, Succeeded
from runledger.postgres.violations import error_for
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_runs import enqueue_workflow_run

ORGANIZATION = "0192f5aa-0000-7000-8000-000000000001"
CALLERS = 6
TURNS = 15


def keyed(connection: Connection, key: str | None = "doc-42", workflow_type: str = "test", **options: Any) -> Any:
    return a_workflow(connection, workflow_type, **options).active_key(key).job("a", TYPE)


def test_a_live_run_is_answered_whatever_the_graph(connection):
    first = enqueue(connection, keyed(connection))

    second = enqueue(connection, keyed(connection).external("gate"))

    assert (second.run_id, second.is_new, second.status) == (first.run_id, False, WorkflowRunStatus.RUNNING)
    assert count(connection, "workflow_runs") == 1
    assert run_of(connection, first.run_id).active_key == "doc-42"


def _succeed(connection: Connection, run_id: object) -> None:
    succeed(connection, *claim_steps(connection).values())


def _fail(connection: Connection, run_id: object) -> None:
    fail(connection, *claim_steps(connection).values())


def _cancel(connection: Connection, run_id: object) -> None:
    with connection.transaction():
        cancel_workflow_run(connection, run_id=str(run_id))


@pytest.mark.parametrize("end", [_succeed, _fail, _cancel])
def test_the_key_is_free_once_the_run_has_ended(connection, end: Callable[[Connection, object], None]) -> None:
    first = enqueue(connection, keyed(connection))
    end(connection, first.run_id)

    second = enqueue(connection, keyed(connection))

    assert (second.is_new, second.run_id != first.run_id) == (True, True)
    assert run_of(connection, first.run_id).active_key == "doc-42"


def test_a_gate_that_ends_the_run_frees_the_key(connection):
    first = enqueue(connection, a_workflow(connection).active_key("k").external("gate"))
    with connection.transaction():
        complete_external_workflow_step(connection, run_id=first.run_id, step_key="gate", outcome=Succeeded())

    assert enqueue(connection, a_workflow(connection).active_key("k").external("gate")).is_new


def test_type_organization_and_key_make_the_place(connection):
    runs = [
        enqueue(connection, keyed(connection)),
        enqueue(connection, keyed(connection, "doc-43")),
        enqueue(connection, keyed(connection, workflow_type="other")),
        enqueue(connection, keyed(connection, organization_id=ORGANIZATION)),
        enqueue(connection, keyed(connection, None)),
        enqueue(connection, keyed(connection, None)),
    ]

    assert [one.is_new for one in runs] == [True] * 6
    assert not enqueue(connection, keyed(connection, organization_id=ORGANIZATION)).is_new


def test_an_idempotent_retry_comes_before_the_active_key(connection):
    first = enqueue(connection, keyed(connection).idempotency_key("i"))
    _succeed(connection, first.run_id)
    other = enqueue(connection, keyed(connection))

    retried = enqueue(connection, keyed(connection).idempotency_key("i"))

    assert (retried.run_id, retried.is_new) == (first.run_id, False)
    assert (enqueue(connection, keyed(connection).idempotency_key("j")).run_id) == other.run_id
    with pytest.raises(errors.EnqueueConflictingRetry, match="active_key"):
        enqueue(connection, keyed(connection, "another").idempotency_key("i"))


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_enqueue_waits_for_the_run_that_is_ending(
    connection, connect: Connect, in_background, is_committed: bool
) -> None:
    first = enqueue(connection, keyed(connection))
    settling, asking = connect(autocommit=False), connect()
    cancel_workflow_run(settling, run_id=first.run_id)
    second: Future[EnqueuedWorkflowRun] = in_background(enqueue, asking, keyed(connection))
    until_blocked(connection, asking)

    settling.commit() if is_committed else settling.rollback()

    assert second.result(10).is_new is is_committed


def test_keys_have_limits(connection):
    with pytest.raises(errors.BlankActiveKey):
        keyed(connection, " \t").build()
    with pytest.raises(InvalidIdentifier):
        keyed(connection, "k" * 513).build()


def test_an_active_key_needs_read_committed(connection, connect: Connect) -> None:
    repeatable = connect(autocommit=False)
    repeatable.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ

    with pytest.raises(errors.WorkflowEnqueueUnsupportedIsolation):
        enqueue_workflow_run(repeatable, keyed(connection).build())


def test_the_database_guards_the_active_key_too(connection):
    enqueue(connection, keyed(connection))

    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        connection.execute(
            "INSERT INTO runledger.workflow_runs (workflow_type, active_key, holds_active_key) "
            "SELECT workflow_type, active_key, true FROM runledger.workflow_runs"
        )

    assert type(error_for(refused.value)) is errors.ActiveKeyConflict


def test_enqueuers_and_workers_never_see_two_live_runs_of_a_key(connection, connect: Connect, in_background) -> None:
    """Callers ask again and again, workers end what they find; at no commit are two runs of the key live."""
    request = keyed(connection).build()
    ended = threading.Event()

    def ask(caller: Connection) -> list[EnqueuedWorkflowRun]:
        answers = []
        for _ in range(TURNS):
            with caller.transaction():
                answers.append(enqueue_workflow_run(caller, request))
        return answers

    def work(worker: Connection, name: str) -> None:
        while not ended.is_set():
            jobs = claim_steps(worker, 5, name)
            if jobs:
                succeed(worker, *jobs.values())

    workers: list[Future[None]] = [in_background(work, connect(), f"w{number}") for number in range(2)]
    try:
        answers = [one.result(60) for one in [in_background(ask, connect()) for _ in range(CALLERS)]]
    finally:
        ended.set()
    for one in workers:
        one.result(60)

    made = [answer for caller in answers for answer in caller if answer.is_new]
    seen = {answer.run_id for caller in answers for answer in caller}
    assert len(made) == len({one.run_id for one in made}) == count(connection, "workflow_runs") == len(seen)
    overlaps = scalar(
        connection,
        "SELECT count(*) FROM runledger.workflow_runs a JOIN runledger.workflow_runs b ON a.id < b.id"
        " WHERE a.finished_at IS NULL AND b.finished_at IS NULL",
    )
    assert overlaps == 0
