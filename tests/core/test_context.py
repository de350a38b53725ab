"""A context checks what a handler says and hands it on; it decides nothing."""

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from runledger.core.context import JobContext
from runledger.core.errors import InvalidCheckpoint, InvalidOutput, InvalidProgress, InvalidRequest
from runledger.core.failures import JobTimeout
from runledger.core.jobs import ClaimedJob
from runledger.core.operations import JobRuntimeConfig
from runledger.core.states import LogLevel

ID = "0192f5aa-0000-7000-8000-000000000001"
JOB = ClaimedJob(ID, 42, "mail.receipt", 1, 2, 3, 30, "{}", None, None, None, None, False)


class Notebook:
    """A reporter that writes down what it is told."""

    def __init__(self) -> None:
        self.is_stopping = False
        self.notes: list[Any] = []

    def save_progress(self, done: int | None, total: int | None) -> None:
        self.notes.append((done, total))

    def save_checkpoint(self, checkpoint_text: str) -> None:
        self.notes.append(checkpoint_text)

    def write_log(self, level: LogLevel, message: str, fields_text: str) -> None:
        self.notes.append((level, message, fields_text))

    def read_runtime_config(self, job_type: str) -> JobRuntimeConfig | None:
        self.notes.append(job_type)
        return None

    def finish(self, connection: object, output_text: str | None) -> None:
        self.notes.append((connection, output_text))


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


def context_of(notebook: Notebook, inputs_text: str | None = None, now: float = 100.0, **changes: Any) -> JobContext:
    return JobContext(
        replace(JOB, **changes),
        worker_id="worker-1",
        reporter=notebook,
        deadline=130.0,
        clock=lambda: now,
        inputs_text=inputs_text,
    )


def test_a_context_shows_its_attempt(notebook):
    context = context_of(notebook, organization_id=ID, workflow_run_id=ID, step_key="crawl")
    assert (context.job_id, context.organization_id, context.workflow_run_id) == (UUID(ID),) * 3
    assert (context.job_type, context.run_number, context.attempt, context.max_attempts) == ("mail.receipt", 1, 2, 3)
    assert (context.worker_id, context.lease_token, context.step_key) == ("worker-1", 42, "crawl")
    assert context_of(notebook).organization_id is context_of(notebook).workflow_run_id is None


def test_remaining_time_is_never_negative(notebook):
    assert context_of(notebook).remaining_seconds() == 30.0
    assert context_of(notebook, now=131.0).remaining_seconds() == 0.0


def test_stopping_is_asked_anew_each_time(notebook):
    context = context_of(notebook)
    assert not context.is_stopping
    notebook.is_stopping = True
    assert context.is_stopping


def test_progress_is_handed_on_as_plain_integers(notebook):
    context = context_of(notebook)
    context.progress(1, 2)
    context.progress(done=0)
    context.progress(total=2**63 - 1)
    assert notebook.notes == [(1, 2), (0, None), (None, 2**63 - 1)]


@pytest.mark.parametrize(
    ("done", "total"), [(None, None), (-1, None), (None, -1), (3, 2), (True, 2), (1.0, 2), ("1", 2), (1, 2**63)]
)
def test_bad_progress_is_refused_and_not_handed_on(notebook, done, total):
    with pytest.raises(InvalidProgress):
        context_of(notebook).progress(done, total)
    assert notebook.notes == []


def test_a_checkpoint_is_read_from_the_claim_and_then_from_what_was_saved(notebook):
    context = context_of(notebook, checkpoint='{"page":3}')
    assert context.checkpoint == {"page": 3}
    context.save_checkpoint({"page": 4})
    assert context.checkpoint == {"page": 4}
    assert notebook.notes == ['{"page":4}']


def test_null_is_a_checkpoint(notebook):
    context = context_of(notebook, checkpoint='{"page":3}')
    context.save_checkpoint(None)
    assert context.checkpoint is None
    assert notebook.notes == ["null"]
    assert context_of(notebook).checkpoint is None


def test_a_bad_checkpoint_is_refused_and_the_old_one_stays(notebook):
    context = context_of(notebook, checkpoint="1")
    for value in (object(), float("nan"), "\0", "x" * 300_000):
        with pytest.raises(InvalidCheckpoint):
            context.save_checkpoint(value)
    assert context.checkpoint == 1
    assert notebook.notes == []


def test_a_poisoned_checkpoint_is_an_error_of_this_job_only(notebook):
    context = context_of(notebook, checkpoint="[" * 3_000)
    with pytest.raises(InvalidCheckpoint):
        _ = context.checkpoint


def test_a_save_that_fails_changes_nothing(notebook):
    class Lost(Notebook):
        def save_checkpoint(self, checkpoint_text: str) -> None:
            raise JobTimeout

    context = context_of(Lost(), checkpoint="1")
    with pytest.raises(JobTimeout):
        context.save_checkpoint(2)
    assert context.checkpoint == 1


def test_inputs_are_empty_outside_a_workflow(notebook):
    assert context_of(notebook).inputs == {}
    context = context_of(notebook, inputs_text='{"crawl":{"pages":3}}')
    assert context.inputs["crawl"] == {"pages": 3}
    assert context.inputs is context.inputs


def test_a_log_line_is_cleaned_and_cut(notebook):
    context = context_of(notebook)
    context.log("info", "a\0b", page=3)
    context.log(LogLevel.ERROR, "x" * 5_000)
    context.log("warning", level="x")
    first, second, alone = notebook.notes
    assert first == (LogLevel.INFO, "ab", '{"page":3}')
    assert alone == (LogLevel.INFO, "warning", '{"level":"x"}')
    assert (second[0], second[2]) == (LogLevel.ERROR, "{}")
    assert len(second[1].encode()) <= 4_096


@pytest.mark.parametrize("level", ["", "loud", "INFO ", None, 20])
def test_an_unknown_level_is_refused(notebook, level):
    with pytest.raises(InvalidRequest, match=r"^level "):
        context_of(notebook).log(level, "message")


def test_fields_that_are_no_json_stand_as_text_and_fail_nothing(notebook):
    class Unspeakable:
        def __str__(self) -> str:
            raise ValueError

    context = context_of(notebook)
    context.log("info", "m", job=UUID(ID), count=1, odd="a\0", bad=Unspeakable(), level="x", message="y")
    assert json.loads(notebook.notes[0][2]) == {
        "job": ID, "count": 1, "odd": "a", "bad": "<Unspeakable without text>", "level": "x", "message": "y",
    }  # fmt: skip


def test_fields_are_bounded(notebook):
    context = context_of(notebook)
    context.log("info", "m", text="x" * 1_000_000)
    context.log("info", "m", **{f"field{number}": "x" * 1_000 for number in range(1_000)})
    cut, omitted = (json.loads(note[2]) for note in notebook.notes)
    assert len(cut["text"].encode()) <= 1_024
    assert omitted == {"fields_omitted": True}


def test_a_timeout_inside_a_value_passes_through_a_log_call(notebook):
    class Slow:
        def __str__(self) -> str:
            raise JobTimeout

    with pytest.raises(JobTimeout):
        context_of(notebook).log("info", "m", value=Slow())


def test_finish_hands_on_the_callers_connection_and_the_output_as_text(notebook):
    context, connection = context_of(notebook), object()
    context.finish(connection, {"sent": True})
    context.finish(connection)
    assert notebook.notes == [(connection, '{"sent":true}'), (connection, None)]
    with pytest.raises(InvalidOutput, match=r"^output "):
        context.finish(connection, object())


def test_a_handler_cannot_add_attributes_to_its_context(notebook):
    with pytest.raises(AttributeError):
        context_of(notebook).anything = 1  # type: ignore[attr-defined]


def test_the_runtime_config_is_read_once_and_only_when_asked_for(notebook: Notebook) -> None:
    context = context_of(notebook)
    assert notebook.notes == []

    assert context.runtime_config() is None
    assert context.runtime_config() is None

    assert notebook.notes == [context.job_type]
