"""The headers of a run reach all its jobs, and middleware sees the enqueue of a run as it sees that of a job."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from postgres.workflow_graphs import TYPE, Connection, a_workflow, claim_steps, enqueue, fail, succeed

from runledger import InvalidRequest, JobCatalog, Middleware, use_for_enqueues
from runledger.core.headers import decode_headers
from runledger.core.middleware import no_longer_for_enqueues
from runledger.core.workflows import StepRequest, WorkflowRunRequest
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_rerun import rerun_workflow_run
from runledger.testing.factories import continued

HEADERS = {"trace": "1"}


class Stamp(Middleware):
    def on_enqueue_run(self, request: WorkflowRunRequest) -> WorkflowRunRequest:
        return replace(request, headers={**(request.headers or {}), "stamp": request.workflow_type})


@pytest.fixture
def stamp() -> Iterator[Stamp]:
    made = Stamp()
    use_for_enqueues(made)
    yield made
    no_longer_for_enqueues(made)


def stored(connection: Connection) -> list[Any]:
    return [row[0] for row in connection.execute("SELECT headers FROM runledger.job_queue ORDER BY id")]


def claimed_headers(connection: Connection) -> dict[str, Any]:
    return {key: decode_headers(job.headers) for key, job in claim_steps(connection).items()}


def test_every_job_of_a_run_has_its_headers_whenever_it_is_released(connection):
    builder = a_workflow(connection).headers(HEADERS).job("first", TYPE).job("last", TYPE).external("gate")
    run_id = enqueue(connection, builder.after_success("last", ["first"])).run_id
    [first] = claim_steps(connection).values()
    assert decode_headers(first.headers) == HEADERS
    succeed(connection, first)
    with connection.transaction():
        steps = [StepRequest("added", TYPE)]
        append_workflow_steps(connection, run_id=run_id, mutation_key="m", window_step_key="gate", steps=steps)
    assert claimed_headers(connection) == {"last": HEADERS, "added": HEADERS}


def test_a_step_that_continues_and_a_run_that_is_run_again_keep_them(connection):
    builder = a_workflow(connection).headers(HEADERS).job("bad", TYPE).job("behind", TYPE)
    run_id = enqueue(connection, builder.after_success("behind", ["bad"])).run_id
    with connection.transaction():
        settle_jobs(connection, [continued(claim_steps(connection)["bad"])])
    again = claim_steps(connection)["bad"]
    assert (again.run_number, decode_headers(again.headers)) == (2, HEADERS)
    fail(connection, again)
    with connection.transaction():
        rerun_workflow_run(connection, run_id=run_id)
    assert claimed_headers(connection) == {"bad": HEADERS}


def test_runs_without_headers_have_jobs_without(connection):
    enqueue(connection, a_workflow(connection).job("a", TYPE))
    enqueue(connection, a_workflow(connection).headers({}).job("a", TYPE))
    assert stored(connection) == [None, None]


def test_a_keyed_replay_keeps_the_first_headers(connection):
    runs = [
        enqueue(connection, a_workflow(connection).idempotency_key("k").headers({"trace": trace}).job("a", TYPE))
        for trace in "12"
    ]
    assert runs[0].run_id == runs[1].run_id
    assert stored(connection) == [{"trace": "1"}]


def test_headers_outside_their_limits_are_refused_when_the_run_is_built(connection):
    with pytest.raises(InvalidRequest, match=r"headers\.trace must be text"):
        a_workflow(connection).headers({"trace": 1}).job("a", TYPE).build()


def test_middleware_of_the_process_sees_the_enqueue_of_a_run(connection, stamp):
    enqueue(connection, a_workflow(connection, "test").headers(HEADERS).job("a", TYPE).job("b", TYPE))
    assert stored(connection) == [{**HEADERS, "stamp": "test"}] * 2


def test_middleware_of_a_catalog_sees_the_runs_it_built_and_sees_them_once(connection, stamp):
    class Counting(Stamp):
        count = 0

        def on_enqueue_run(self, request: WorkflowRunRequest) -> WorkflowRunRequest:
            self.count += 1
            return super().on_enqueue_run(request)

    counting = Counting()
    catalog = JobCatalog()
    catalog.job(TYPE)(lambda context, payload: None)
    catalog.use(stamp)
    catalog.use(counting)
    catalog.sync_definitions(connection)
    enqueue(connection, catalog.workflow("mine").job("a", TYPE))
    enqueue(connection, a_workflow(connection, "other").job("a", TYPE))
    assert counting.count == 1
    assert stored(connection) == [{"stamp": "mine"}, {"stamp": "other"}]


@pytest.mark.parametrize(("answer", "error"), [(None, InvalidRequest), (PermissionError("no"), PermissionError)])
def test_a_run_that_middleware_refuses_leaves_nothing(connection, stamp, monkeypatch, answer, error):
    def refuse(request: WorkflowRunRequest) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(stamp, "on_enqueue_run", refuse)
    with pytest.raises(error):
        enqueue(connection, a_workflow(connection).job("a", TYPE))
    assert connection.execute("SELECT count(*) FROM runledger.workflow_runs").fetchone() == (0,)
