"""Random graphs in random order against a model: the end does not depend on the order, and nothing happens early.

RUNLEDGER_WORKFLOW_EXAMPLES raises the number of graphs (default 60).
"""

import os
import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres.workflow_graphs import ANY, TYPE, Connection, assert_invariants, claim_steps, run_of, statuses

from runledger.core.states import ReleaseMode, StepKind, WorkflowRunStatus
from runledger.core.workflows import Canceled, Failed, StepDependency, StepRequest, Succeeded, WorkflowRunRequest
from runledger.postgres.operations import cancel_job
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import a_definition, dead_lettered, failed, make_due, succeeded

EXAMPLES = int(os.environ.get("RUNLEDGER_WORKFLOW_EXAMPLES", "60"))
ENDS = ("SUCCEEDED", "FAILED", "CANCELED")
OUTCOMES = {"SUCCEEDED": Succeeded({"ok": 1}), "FAILED": Failed("no"), "CANCELED": Canceled()}


@dataclass
class ModelStep:
    """A step with the end it will have if it is ever released."""

    is_gate: bool
    end: str
    edges: dict[str, ReleaseMode] = field(default_factory=dict)


Graph = dict[str, ModelStep]


@st.composite
def graphs(draw: Any, largest: int = 12) -> Graph:
    count = draw(st.integers(1, largest))
    graph: Graph = {}
    for number in range(count):
        before = draw(st.lists(st.sampled_from(sorted(graph)), unique=True, max_size=4)) if graph else []
        graph[f"s{number:02}"] = ModelStep(
            draw(st.booleans()) if number % 3 == 0 else False,
            draw(st.sampled_from(("SUCCEEDED", "SUCCEEDED", "FAILED", "CANCELED"))),
            {key: draw(st.sampled_from(list(ReleaseMode))) for key in before},
        )
    return graph


def fixpoint(graph: Graph) -> dict[str, str]:
    """The end of every step, by repeating the rules until nothing changes."""
    ends: dict[str, str] = {}
    while len(ends) < len(graph):
        for key, one in graph.items():
            if key in ends or not one.edges.keys() <= ends.keys():
                continue
            is_satisfied = all(
                ends[other] == "SUCCEEDED" for other, mode in one.edges.items() if mode is ReleaseMode.ON_SUCCESS
            )
            ends[key] = one.end if is_satisfied else "CANCELED"
    return ends


def requests(graph: Graph) -> list[StepRequest]:
    return [
        StepRequest(
            key,
            None if one.is_gate else TYPE,
            kind=StepKind.EXTERNAL if one.is_gate else StepKind.JOB,
            dependencies=[StepDependency(*edge) for edge in one.edges.items()],
        )
        for key, one in graph.items()
    ]


def start(connection: Connection, graph: Graph, chance: random.Random) -> str:
    steps = requests(graph)
    chance.shuffle(steps)
    with connection.transaction():
        return str(enqueue_workflow_run(connection, WorkflowRunRequest("random", steps)).run_id)


def one_turn(connection: Connection, run_id: str, graph: Graph, chance: random.Random) -> bool:
    """Some of what can end ends, in one transaction or several; false when nothing can."""
    now = statuses(connection, run_id)
    gates = [key for key, status in now.items() if status == "WAITING_FOR_EXTERNAL"]
    jobs = list(claim_steps(connection, limit=chance.randint(1, 5)).items())
    if not gates and not jobs:
        return False
    chance.shuffle(jobs)
    with connection.transaction():
        ends = []
        for key, job in jobs:
            if chance.random() < 0.1:
                ends.append(failed(job, retry_seconds=0))
            elif graph[key].end == "CANCELED":
                cancel_job(connection, job.job_id, scope=ANY)
            else:
                ends.append(succeeded(job, {"key": key}) if graph[key].end == "SUCCEEDED" else dead_lettered(job))
        assert len(settle_jobs(connection, ends)) == len(ends)
    assert_invariants(connection)
    for key in chance.sample(gates, chance.randint(0 if jobs else 1, len(gates)) if gates else 0):
        with connection.transaction():
            complete_external_workflow_step(connection, run_id=run_id, step_key=key, outcome=OUTCOMES[graph[key].end])
        assert_invariants(connection)
    return True


def run_to_the_end(connection: Connection, run_id: str, graph: Graph, chance: random.Random) -> None:
    assert_invariants(connection)
    for _ in range(500):
        if not one_turn(connection, run_id, graph, chance):
            return
    raise AssertionError("the run has no end")


thorough = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
chances = st.integers(0, 2**32).map(random.Random)


@thorough
@given(graphs(), chances)
def test_the_end_does_not_depend_on_the_order(connection: Connection, graph: Graph, chance: random.Random) -> None:
    a_definition(connection, TYPE, max_attempts=1_000)
    expected = fixpoint(graph)
    run_id = start(connection, graph, chance)

    run_to_the_end(connection, run_id, graph, chance)

    assert statuses(connection, run_id) == expected
    is_good = set(expected.values()) == {"SUCCEEDED"}
    assert run_of(connection, run_id).status is (
        WorkflowRunStatus.SUCCEEDED if is_good else WorkflowRunStatus.COMPLETED_WITH_ERRORS
    )


@thorough
@given(graphs(6), graphs(6), chances)
def test_steps_that_are_appended_behave_as_if_they_had_always_been_there(
    connection: Connection, graph: Graph, more: Graph, chance: random.Random
) -> None:
    a_definition(connection, TYPE, max_attempts=1_000)
    graph = graph | {"window": ModelStep(True, "SUCCEEDED")}
    added = {
        f"m{key}": ModelStep(
            one.is_gate,
            one.end,
            {f"m{other}": mode for other, mode in one.edges.items()}
            | {key: chance.choice(list(ReleaseMode)) for key in chance.sample(sorted(graph), chance.randint(0, 2))},
        )
        for key, one in more.items()
    }
    run_id = start(connection, graph, chance)
    for _ in range(chance.randint(0, 6)):
        if statuses(connection, run_id)["window"] == "WAITING_FOR_EXTERNAL":
            one_turn_without_window(connection, run_id, graph, chance)

    with connection.transaction():
        append_workflow_steps(
            connection, run_id=run_id, mutation_key="m", window_step_key="window", steps=requests(added)
        )
    assert_invariants(connection)
    whole = graph | added
    run_to_the_end(connection, run_id, whole, chance)

    assert statuses(connection, run_id) == fixpoint(whole)


def one_turn_without_window(connection: Connection, run_id: str, graph: Graph, chance: random.Random) -> None:
    jobs = list(claim_steps(connection, limit=chance.randint(1, 5)).items())
    with connection.transaction():
        settle_jobs(
            connection,
            [succeeded(job) if graph[key].end == "SUCCEEDED" else dead_lettered(job) for key, job in jobs],
        )
    for key, job in jobs:  # the model says cancelled; these ran, so they failed
        if graph[key].end == "CANCELED":
            graph[key].end = "FAILED"
        make_due(connection, job)
    assert_invariants(connection)


@thorough
@given(graphs(), chances, st.integers(0, 6))
def test_a_cancelled_run_is_cancelled_as_a_whole(
    connection: Connection, graph: Graph, chance: random.Random, turns: int
) -> None:
    a_definition(connection, TYPE, max_attempts=1_000)
    run_id = start(connection, graph, chance)
    for _ in range(turns):
        one_turn(connection, run_id, graph, chance)
    claim_steps(connection, limit=2)
    before, was_final = statuses(connection, run_id), run_of(connection, run_id).status.is_final

    with connection.transaction():
        assert cancel_workflow_run(connection, run_id=run_id) is not was_final

    assert_invariants(connection)
    after = statuses(connection, run_id)
    assert after == {key: status if status in ENDS else "CANCELED" for key, status in before.items()}
    if not was_final:
        assert run_of(connection, run_id).status is WorkflowRunStatus.CANCELED
    assert claim_steps(connection) == {}
