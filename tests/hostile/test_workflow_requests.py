"""Hostile graphs, by name: each is refused with its error before anything is written."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from runledger import (
    RunledgerError,
    StepDependency,
    StepRequest,
    WorkflowRunRequest,
    enqueue_workflow_run,
    output_of,
)
from runledger.core.states import ReleaseMode, StepKind
from runledger.core.workflows import AppendRequest
from runledger.testing.factories import a_definition

TYPE = "hostile.step"
Connection = psycopg.Connection[Any]


def step(key: Any, *prerequisites: Any, **options: Any) -> StepRequest:
    edges = [one if isinstance(one, StepDependency) else StepDependency(one) for one in prerequisites]
    return StepRequest(key, options.pop("job_type", TYPE), dependencies=edges, **options)


def gate(key: str, **options: Any) -> StepRequest:
    return StepRequest(key, kind=StepKind.EXTERNAL, **options)


def chain(length: int) -> list[StepRequest]:
    return [step(str(number), *([str(number - 1)] if number else [])) for number in range(length)]


def dense(layers: int, width: int) -> list[StepRequest]:
    return [
        step(f"{layer}.{number}", *([f"{layer - 1}.{before}" for before in range(width)] if layer else []))
        for layer in range(layers)
        for number in range(width)
    ]


MakeSteps = Callable[[], Any]
REFUSED: dict[str, tuple[MakeSteps, str]] = {
    "W01 no steps": (list, "EmptySteps"),
    "W02 a step behind itself": (lambda: [step("a", "a")], "SelfDependency"),
    "W03 two in a circle": (lambda: [step("a", "b"), step("b", "a")], "CycleDetected"),
    "W04 a circle of a hundred": (lambda: [step("0", "99"), *chain(100)[1:]], "CycleDetected"),
    "W05 one key twice": (lambda: [step("a"), step("a")], "DuplicateStepKey"),
    "W05b one key in two spellings": (lambda: [step("\u00e9"), step("e\u0301")], "DuplicateStepKey"),
    "W06 an unknown prerequisite": (lambda: [step("a", "b")], "MissingDependency"),
    "W07 an edge twice": (lambda: [step("a"), step("b", "a", "a")], "DuplicateDependency"),
    "W07b an edge in two modes": (
        lambda: [step("a"), step("b", "a", StepDependency("a", ReleaseMode.ON_SUCCESS))],
        "DuplicateDependency",
    ),
    "W08 more steps than a request holds": (lambda: [step(str(number)) for number in range(10_001)], "TooManySteps"),
    "W11 more edges than a request holds": (lambda: dense(12, 100), "DependencyCountOverflow"),
    "W12 a gate with a priority": (lambda: [gate("a", priority=1)], "ExternalStepQueueSettingsNotAllowed"),
    "W12b a gate with a timeout": (lambda: [gate("a", timeout_seconds=1)], "ExternalStepQueueSettingsNotAllowed"),
    "W12c a gate with a type": (lambda: [gate("a", job_type=TYPE)], "ExternalStepJobTypeNotAllowed"),
    "W13 a blank key": (lambda: [step("  ")], "BlankStepKey"),
    "W13b a key of zero width": (lambda: [step("\u200b")], "InvalidIdentifier"),
    "W13c NUL in a key": (lambda: [step("a\0")], "InvalidIdentifier"),
    "W13d a key that is a number": (lambda: [step(1)], "InvalidIdentifier"),
    "W13e a long key": (lambda: [step("k" * 5_000)], "InvalidIdentifier"),
    "W13f a blank prerequisite": (lambda: [step("a", " ")], "BlankDependencyStepKey"),
    "W16 no job type": (lambda: [step("a", job_type=None)], "BlankStepJobType"),
    "W16b a type that nobody stored": (
        lambda: [step("a", job_type="nobody.knows")],
        "WorkflowDefinitionNotFoundOrDisabled",
    ),
    "W19 attempts below one": (lambda: [step("a", max_attempts=0)], "NonPositiveStepMaxAttempts"),
    "W19b timeout below one": (lambda: [step("a", timeout_seconds=-1)], "NonPositiveStepTimeoutSeconds"),
    "W19c priority as text": (lambda: [step("a", priority="high")], "InvalidRequest"),
    "W21 NaN in a payload": (lambda: [step("a", payload=float("nan"))], "InvalidPayload"),
    "W21b a payload of a megabyte": (lambda: [step("a", payload="x" * 1_048_576)], "InvalidPayload"),
    "W22 an output of a stranger": (
        lambda: [step("a"), step("b", payload={"x": output_of("a")})],
        "InvalidOutputReference",
    ),
    "W22b its own output": (lambda: [step("a", payload={"x": output_of("a")})], "InvalidOutputReference"),
    "W23 no steps at all": (lambda: None, "InvalidRequest"),
    "W23b a text": (lambda: "abc", "InvalidRequest"),
    "W23c a step of another kind": (lambda: [{"step_key": "a"}], "InvalidRequest"),
    "W23d an append": (lambda: [AppendRequest("a", "b", [])], "InvalidRequest"),
    "W24 a kind of no kind": (lambda: [StepRequest("a", TYPE, kind="SOMETHING")], "InvalidRequest"),  # type: ignore[arg-type]
    "W24b a mode of no kind": (
        lambda: [step("a"), step("b", StepDependency("a", "MAYBE"))],  # type: ignore[arg-type]
        "InvalidRequest",
    ),
}


@pytest.fixture(scope="module")
def connection(database_url: str) -> Iterator[Connection]:
    with psycopg.connect(database_url, autocommit=True) as made:
        a_definition(made, TYPE)
        yield made


def stored(connection: Connection) -> tuple[Any, ...]:
    query = (
        "SELECT (SELECT count(*) FROM runledger.workflow_runs), (SELECT count(*) FROM runledger.workflow_steps),"
        " (SELECT count(*) FROM runledger.job_queue)"
    )
    [row] = connection.execute(query).fetchall()
    return tuple(row)


@pytest.mark.parametrize("name", REFUSED)
def test_a_graph_that_cannot_run_is_refused(connection: Connection, name: str) -> None:
    make, error = REFUSED[name]
    before = stored(connection)

    with pytest.raises(RunledgerError) as caught, connection.transaction():
        enqueue_workflow_run(connection, WorkflowRunRequest("hostile", make()))

    assert type(caught.value).__name__ == error
    assert len(str(caught.value)) < 600
    assert stored(connection) == before


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"workflow_type": ""}, id="W25 a blank type"),
        pytest.param({"workflow_type": "a\0b"}, id="W25b NUL in the type"),
        pytest.param({"result_step_key": "nobody"}, id="W18 a result of nobody"),
        pytest.param({"metadata": {"a": "\ud800"}}, id="W26 a surrogate in the metadata"),
        pytest.param({"idempotency_key": "k" * 600}, id="W27 a long key"),
        pytest.param({"organization_id": "acme"}, id="W28 an organization of no kind"),
    ],
)
def test_a_run_with_a_bad_option_is_refused(connection: Connection, options: dict[str, Any]) -> None:
    before = stored(connection)
    with pytest.raises(RunledgerError), connection.transaction():
        enqueue_workflow_run(
            connection, WorkflowRunRequest(**{"workflow_type": "hostile", "steps": [step("a")]} | options)
        )

    assert stored(connection) == before


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: chain(1_000), id="W09 a chain of a thousand"),
        pytest.param(lambda: [*chain(2), step("join", "0", "1")], id="W20 a join without a fork"),
        pytest.param(lambda: [gate("a"), gate("b")], id="W29 nothing but gates"),
        pytest.param(
            lambda: [step("a"), step("b", "a", payload={"x": output_of("a")})], id="W22c an output that may be missing"
        ),
        pytest.param(lambda: [step("'; DROP TABLE x; --")], id="W30 SQL as a key"),
    ],
)
def test_a_strange_graph_is_accepted(connection: Connection, make: MakeSteps) -> None:
    with connection.transaction():
        assert enqueue_workflow_run(connection, WorkflowRunRequest("hostile", make())).is_new
