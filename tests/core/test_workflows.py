"""A graph is checked as a whole before any SQL, in one order; and two ways to write it down are one request."""

import json
import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runledger.core import workflow_errors as errors
from runledger.core.catalog import JobCatalog
from runledger.core.errors import DisabledJobType, InvalidIdentifier, InvalidPayload, InvalidRequest, UnknownJobType
from runledger.core.states import JobStage, ReleaseMode, StepKind
from runledger.core.templates import encode_template
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflow_requests import (
    append_snapshot,
    encode_append,
    encode_run,
    workflow_differences,
)
from runledger.core.workflows import AppendRequest, StepDependency, StepRequest, WorkflowRunRequest, output_of

ORGANIZATION = "0192f5aa-0000-7000-8000-000000000001"
SUCCESS, TERMINAL = ReleaseMode.ON_SUCCESS, ReleaseMode.ON_TERMINAL


def step(key: str, *after: str, **options: Any) -> StepRequest:
    return StepRequest(key, "work", dependencies=[StepDependency(one) for one in after], **options)


def gate(key: str, **options: Any) -> StepRequest:
    return StepRequest(key, kind=StepKind.EXTERNAL, **options)


def run(*steps: StepRequest, **options: Any) -> WorkflowRunRequest:
    return WorkflowRunRequest("test", steps, **options)


def snapshot(*steps: StepRequest, **options: Any) -> Any:
    return json.loads(encode_run(run(*steps, idempotency_key="key", **options)).snapshot or "")


MISTAKES: list[tuple[type[errors.InvalidWorkflow], WorkflowRunRequest]] = [
    (errors.BlankStepKey, run(step(" "))),
    (errors.BlankStepJobType, run(StepRequest("a", " "))),
    (errors.BlankStepJobType, run(StepRequest("a"))),
    (errors.NonPositiveStepMaxAttempts, run(step("a", max_attempts=0))),
    (errors.NonPositiveStepTimeoutSeconds, run(step("a", timeout_seconds=-1))),
    (errors.ExternalStepJobTypeNotAllowed, run(gate("a", job_type="work"))),
    (errors.ExternalStepQueueSettingsNotAllowed, run(gate("a", priority=1))),
    (errors.ExternalStepQueueSettingsNotAllowed, run(gate("a", max_attempts=1))),
    (errors.ExternalStepQueueSettingsNotAllowed, run(gate("a", timeout_seconds=1))),
    (errors.ExternalStepQueueSettingsNotAllowed, run(gate("a", stage=JobStage.QUEUED))),
    (errors.BlankDependencyStepKey, run(step("a", ""))),
    (errors.SelfDependency, run(step("a", "a"))),
    (errors.DuplicateDependency, run(step("b"), step("a", "b", "b"))),
    (errors.BlankIdempotencyKey, run(step("a"), idempotency_key=" ")),
    (errors.BlankActiveKey, run(step("a"), active_key=" ")),
    (errors.BlankResultStepKey, run(step("a"), result_step_key="")),
    (errors.BlankWorkflowType, WorkflowRunRequest("\t", [step("a")])),
    (errors.EmptySteps, run()),
    (errors.DuplicateStepKey, run(step("a"), step("a"))),
    (errors.MissingDependency, run(step("a", "b"))),
    (errors.CycleDetected, run(step("a", "b"), step("b", "a"))),
    (errors.UnknownResultStepKey, run(step("a"), result_step_key="b")),
    (errors.InvalidOutputReference, run(step("a"), step("b", payload=output_of("a")))),
    (errors.TooManySteps, run(*(step(str(number)) for number in range(10_001)))),
    (
        errors.DependencyCountOverflow,
        run(*(step(f"a{n}") for n in range(317)), *(step(f"b{n}", *(f"a{m}" for m in range(317))) for n in range(317))),
    ),
]


@pytest.mark.parametrize(("expected", "request_"), MISTAKES, ids=lambda value: getattr(value, "__name__", ""))
def test_every_mistake_has_its_error(expected: type[errors.InvalidWorkflow], request_: WorkflowRunRequest) -> None:
    with pytest.raises(expected) as caught:
        encode_run(request_)

    assert type(caught.value) is expected
    assert caught.value.category == "validation"
    assert caught.value.code.startswith("workflow.invalid_dag_")


def test_codes_are_unique():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    own = [kind.code for kind in kinds if kind.__module__ == errors.__name__]

    assert len(own) == len(set(own))


@pytest.mark.parametrize(
    ("expected", "request_"),
    [
        (errors.BlankStepKey, run(step(" ", max_attempts=0), step("a", "a"))),
        (errors.BlankStepJobType, run(StepRequest("a", "", max_attempts=0))),
        (errors.NonPositiveStepMaxAttempts, run(step("a", "a", max_attempts=0, timeout_seconds=0))),
        (errors.ExternalStepJobTypeNotAllowed, run(gate("a", job_type="x", priority=1))),
        (errors.SelfDependency, run(step("a", "a", "b", "b"), idempotency_key=" ")),
        (errors.BlankIdempotencyKey, WorkflowRunRequest(" ", [], idempotency_key=" ", result_step_key=" ")),
        (errors.BlankResultStepKey, WorkflowRunRequest(" ", [], result_step_key=" ")),
        (errors.BlankWorkflowType, WorkflowRunRequest(" ", [])),
        (errors.DuplicateStepKey, run(step("a", "missing"), step("a"))),
        (errors.MissingDependency, run(step("a", "b"), step("b", "a"), step("c", "missing"))),
        (errors.CycleDetected, run(step("a", "b"), step("b", "a"), result_step_key="z")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_of_two_mistakes_the_first_in_order_is_reported(
    expected: type[errors.InvalidWorkflow], request_: WorkflowRunRequest
) -> None:
    with pytest.raises(expected):
        encode_run(request_)


def test_a_cycle_is_shown():
    with pytest.raises(errors.CycleDetected, match="a -> c -> b -> a"):
        encode_run(run(step("a", "c"), step("b", "a"), step("c", "b"), step("d", "a")))


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (InvalidIdentifier, step("x" * 201)),
        (InvalidIdentifier, step("a\n")),
        (InvalidIdentifier, StepRequest("a", " work")),
        (InvalidRequest, step("a", max_attempts=1_001)),
        (InvalidRequest, step("a", priority=2**31)),
        (InvalidRequest, step("a", organization_id="nobody")),
        (InvalidRequest, step("a", stage=JobStage.RUNNING)),
        (InvalidRequest, "not a step"),
        (InvalidRequest, StepRequest("a", "work", dependencies=["b"])),  # type: ignore[list-item]
        (InvalidPayload, step("a", payload={"x": float("nan")})),
    ],
)
def test_a_value_outside_its_limits_is_refused(error: type[Exception], broken: Any) -> None:
    with pytest.raises(error):
        encode_run(run(broken))


def test_two_spellings_of_one_key_are_one_key():
    with pytest.raises(errors.DuplicateStepKey):
        encode_run(run(step("caf\u00e9"), step("cafe\u0301")))


def test_a_chain_of_ten_thousand_steps_is_no_recursion():
    steps = [step("0"), *(step(str(number), str(number - 1)) for number in range(1, 10_000))]

    assert len(encode_run(run(*steps)).steps) == 10_000


def test_a_circle_of_ten_thousand_steps_is_found():
    steps = [step(str(number), str((number - 1) % 10_000)) for number in range(10_000)]

    with pytest.raises(errors.CycleDetected, match="…"):
        encode_run(run(*steps))


edge_sets = st.integers(1, 7).flatmap(
    lambda count: st.tuples(
        st.just(count),
        st.sets(
            st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda edge: edge[0] != edge[1])
        ),
    )
)


def has_circle(count: int, edges: set[tuple[int, int]]) -> bool:
    """Whether some step reaches itself: the transitive closure by repetition."""
    reached = set(edges)
    for _ in range(count):
        reached |= {(a, d) for a, b in reached for c, d in edges if b == c}
    return any(a == b for a, b in reached)


@given(edge_sets)
def test_a_cycle_is_found_exactly_when_there_is_one(graph: tuple[int, set[tuple[int, int]]]) -> None:
    count, edges = graph
    request = run(*(step(str(a), *(str(b) for x, b in sorted(edges) if x == a)) for a in range(count)))

    try:
        encode_run(request)
        found = False
    except errors.CycleDetected as error:
        found = True
        circle = [int(key) for key in str(error).partition(": ")[2].split(" -> ")]
        assert all(edge in edges for edge in pairwise(circle))
        assert circle[0] == circle[-1]
    assert found == has_circle(count, edges)


@given(st.randoms(use_true_random=False), st.integers(1, 8))
@settings(max_examples=60)
def test_the_order_of_steps_and_edges_is_nothing(chance: random.Random, count: int) -> None:
    steps = [
        StepRequest(
            str(number),
            "work",
            {"number": number},
            dependencies=[
                StepDependency(str(before), chance.choice([SUCCESS, TERMINAL]))
                for before in range(number)
                if chance.random() < 0.5
            ],
        )
        for number in range(count)
    ]
    first = encode_run(run(*steps, idempotency_key="key")).snapshot
    shuffled = [
        StepRequest(
            one.step_key, one.job_type, one.payload, dependencies=chance.sample(one.dependencies, len(one.dependencies))
        )
        for one in chance.sample(steps, len(steps))
    ]

    assert encode_run(run(*shuffled, idempotency_key="key")).snapshot == first


def test_the_snapshot_is_this():
    assert snapshot(
        gate("ok"),
        StepRequest(
            "b",
            "work",
            {"x": output_of("a", "y", 0)},
            dependencies=[StepDependency("a", SUCCESS), StepDependency("ok")],
        ),
        step("a", priority=3),
        metadata={"source": "api"},
        organization_id=ORGANIZATION,
        result_step_key="b",
    ) == {
        "metadata": {"source": "api"},
        "result_step_key": "b",
        "steps": [
            {
                "step_key": "a",
                "execution_kind": "JOB",
                "job_type": "work",
                "organization_id": ORGANIZATION,
                "payload": {},
                "priority": 3,
                "max_attempts": None,
                "timeout_seconds": None,
                "stage": "queued",
                "dependencies": [],
            },
            {
                "step_key": "b",
                "execution_kind": "JOB",
                "job_type": "work",
                "organization_id": ORGANIZATION,
                "payload": {"x": {"$output_of": ["a", "y", 0]}},
                "priority": None,
                "max_attempts": None,
                "timeout_seconds": None,
                "stage": "queued",
                "dependencies": [
                    {"prerequisite_step_key": "a", "release_mode": "ON_SUCCESS"},
                    {"prerequisite_step_key": "ok", "release_mode": "ON_TERMINAL"},
                ],
                "payload_parts": ['{"x":', {"step": "a", "path": ["y", "0"]}, "}"],
            },
            {
                "step_key": "ok",
                "execution_kind": "EXTERNAL",
                "job_type": None,
                "organization_id": ORGANIZATION,
                "payload": {},
                "priority": None,
                "max_attempts": None,
                "timeout_seconds": None,
                "stage": None,
                "dependencies": [],
            },
        ],
    }


def test_the_scope_of_the_run_written_on_its_steps_is_the_same_request():
    assert snapshot(step("a"), organization_id=ORGANIZATION) == snapshot(
        step("a", organization_id=ORGANIZATION), organization_id=ORGANIZATION
    )


def test_a_run_without_a_key_carries_no_snapshot():
    assert encode_run(run(step("a"))).snapshot is None


def test_differences_name_step_and_field():
    ours = encode_run(run(step("a", priority=1), step("b"), idempotency_key="key")).snapshot
    theirs = encode_run(run(step("a", priority=2), idempotency_key="key")).snapshot

    fields = {one.field for one in workflow_differences(ours or "", theirs or "")}

    assert "steps.a.priority" in fields
    assert "steps.b.payload" in fields
    assert "steps.a.payload" not in fields


def test_a_payload_without_holes_has_no_parts():
    template = encode_template({"a": [1, {"b": None}]})

    assert (template.payload, template.parts, template.references) == ('{"a":[1,{"b":null}]}', None, ())


def test_a_whole_payload_may_be_an_output():
    template = encode_template(output_of("a"))

    assert json.loads(template.parts or "") == [{"step": "a", "path": []}]


def test_what_looks_like_a_hole_is_none():
    literal = snapshot(step("a"), step("b", "a", payload={"$output_of": ["a"]}))
    hole = snapshot(step("a"), step("b", "a", payload=output_of("a")))

    assert literal != hole
    assert encode_template({"$output_of": ["a"]}).parts is None


@pytest.mark.parametrize("path", [(-1,), (1.5,), (True,), (None,)])
def test_a_path_takes_keys_and_indexes(path: Any) -> None:
    with pytest.raises(InvalidRequest):
        output_of("a", *path)


def test_a_payload_that_never_ends_is_refused():
    endless: list[Any] = [output_of("a")]
    endless += [endless, endless]

    with pytest.raises(InvalidPayload):
        encode_template(endless)


def test_the_builder_makes_the_explicit_request():
    built = (
        WorkflowDagBuilder("ingest", metadata={"source": "api"}, organization_id=ORGANIZATION)
        .idempotency_key("doc-42")
        .job("crawl", "doc.crawl", {"url": "x"}, priority=5)
        .job("classify", "doc.classify", {"pages": output_of("crawl", "pages")})
        .after_success("classify", ["crawl"])
        .external("approve")
        .after_success("approve", ["classify"])
        .after_terminal("approve", ["crawl"])
        .result_step("classify")
        .build()
    )

    assert built == WorkflowRunRequest(
        "ingest",
        (
            StepRequest("crawl", "doc.crawl", {"url": "x"}, priority=5, dependencies=()),
            StepRequest(
                "classify",
                "doc.classify",
                {"pages": output_of("crawl", "pages")},
                dependencies=(StepDependency("crawl", SUCCESS),),
            ),
            StepRequest(
                "approve",
                kind=StepKind.EXTERNAL,
                dependencies=(StepDependency("classify", SUCCESS), StepDependency("crawl", TERMINAL)),
            ),
        ),
        metadata={"source": "api"},
        organization_id=ORGANIZATION,
        idempotency_key="doc-42",
        result_step_key="classify",
    )


def test_a_prerequisite_may_come_after_its_edge():
    built = WorkflowDagBuilder("w").job("b", "work").after_success("b", ["a"]).job("a", "work").build()

    assert [one.step_key for one in built.steps] == ["b", "a"]


def test_an_empty_list_of_prerequisites_does_nothing():
    built = WorkflowDagBuilder("w").job("a", "work").after_success("a", []).build()

    assert built.steps[0].dependencies == ()


BUILDER_MISTAKES: list[tuple[type[errors.InvalidWorkflow], Any]] = [
    (errors.BlankStepKey, lambda builder: builder.job(" ", "")),
    (errors.DuplicateStepKey, lambda builder: builder.job("a", "")),
    (errors.BlankStepJobType, lambda builder: builder.job("b", " ")),
    (errors.BlankStepKey, lambda builder: builder.external("")),
    (errors.DuplicateStepKey, lambda builder: builder.external("a")),
    (errors.DuplicateStepKey, lambda builder: builder.step(step("a"))),
    (errors.BlankStepKey, lambda builder: builder.after_success("", [""])),
    (errors.BlankDependencyStepKey, lambda builder: builder.after_terminal("z", [""])),
    (errors.UnknownStepKey, lambda builder: builder.after_success("z", ["a"])),
]


@pytest.mark.parametrize(("expected", "call"), BUILDER_MISTAKES)
def test_a_refused_call_changes_nothing(expected: type[errors.InvalidWorkflow], call: Any) -> None:
    builder = WorkflowDagBuilder("w").job("a", "work")
    before = builder.build()

    with pytest.raises(expected):
        call(builder)
    assert builder.build() == before


def test_one_prerequisite_in_two_modes_is_a_duplicate():
    builder = WorkflowDagBuilder("w").job("a", "work").job("b", "work")

    with pytest.raises(errors.DuplicateDependency):
        builder.after_success("b", ["a"]).after_terminal("b", ["a"]).build()


@pytest.fixture
def catalog() -> JobCatalog:
    made = JobCatalog()

    @made.job("doc.crawl")
    def crawl(context: Any, payload: dict[str, int]) -> None: ...

    made.job("doc.off", enabled=False)(lambda context, payload: None)
    return made


def test_a_catalog_checks_each_job_type(catalog: JobCatalog) -> None:
    with pytest.raises(UnknownJobType):
        catalog.workflow("w").job("a", "doc.unknown")
    with pytest.raises(DisabledJobType):
        catalog.workflow("w").job("a", "doc.off")
    with pytest.raises(UnknownJobType):
        catalog.workflow("w").step(StepRequest("a", "doc.unknown"))


def test_a_catalog_checks_payloads_that_are_known(catalog: JobCatalog) -> None:
    with pytest.raises(InvalidPayload):
        catalog.workflow("w").job("a", "doc.crawl", {"x": "no number"})
    builder = catalog.workflow("w", organization_id=ORGANIZATION).job("a", "doc.crawl", {"x": 1}).external("ok")
    builder.job("b", "doc.crawl", {"x": output_of("a", "x")}).after_success("b", ["a"])

    assert [one.job_type for one in builder.build().steps] == ["doc.crawl", None, "doc.crawl"]


def append(*steps: StepRequest, **options: Any) -> AppendRequest:
    return AppendRequest(options.pop("mutation_key", "m"), options.pop("window_step_key", "gate"), steps, **options)


def test_an_append_needs_a_key_and_steps():
    with pytest.raises(errors.AppendMutationKeyBlank):
        encode_append(append(mutation_key=" "))
    with pytest.raises(errors.EmptySteps):
        encode_append(append())
    with pytest.raises(errors.SelfDependency):
        encode_append(append(step("a", "a")))


def test_the_metadata_of_an_append_is_not_compared():
    first = append_snapshot(encode_append(append(step("a"), metadata={"by": "ada"})))
    second = append_snapshot(encode_append(append(step("a"), metadata={"by": "bob"})))

    assert first == second


def test_an_output_of_no_prerequisite_names_the_step_and_the_cure():
    builder = WorkflowDagBuilder("w").job("a", "t").job("b", "t", {"x": output_of("a", "n")})
    with pytest.raises(errors.InvalidOutputReference, match="the output of 'a', which is no direct") as refused:
        builder.build()
    assert refused.value.hint == "make it one: after_success('b', ['a'])"
    builder.after_success("b", ["a"]).build()


@pytest.mark.parametrize("use", [str, "x-{}".format, lambda hole: f"x-{hole}", lambda hole: f"{hole:>9}"])
def test_an_output_is_no_part_of_a_text(use: Any) -> None:
    with pytest.raises(errors.InvalidOutputReference, match="not known yet"):
        use(output_of("a", "codec"))
    assert repr(output_of("a", "codec")) == "OutputOf(step_key='a', path=('codec',))"
