"""``runledger demo`` for real on a small directory, and the pure parts: what is extracted, planned and checked."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from runledger import Attempt, DeadLetter, Job, JobStage, JobStatus, Outcome
from runledger.cli.demo import _show
from runledger.demo.check import MOST_DIFFERENCES, Observation, differences
from runledger.demo.extraction import extract
from runledger.demo.long_text import STEPS, LongText, read_through
from runledger.demo.plan import LARGEST_FILE_BYTES, MISSING_PATH, Plan, make_plan
from runledger.demo.report import make_report
from runledger.demo.results import ResultRow
from runledger.demo.workers import Kill
from runledger.embedded import EmbeddedServer, ServerState

DEMO_PATIENCE_SECONDS = 150
BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three files that are read, and four that are not."""
    root = tmp_path / "input"
    (root / "notes").mkdir(parents=True)
    (root / "notes" / "one.md").write_text("# One\n\nSee https://example.org/a. Twice the word, twice.\n")
    (root / "two.py").write_text("class Two:\n    def walk(self): ...\n")
    (root / "three.txt").write_text("")
    (root / "image.bin").write_bytes(b"GIF\0\1")
    (root / "large.txt").write_text("x" * (LARGEST_FILE_BYTES + 1))
    (root / ".hidden").write_text("hidden")
    (root / "link.txt").symlink_to(root / "two.py")
    return root


class TestExtraction:
    def test_words_are_counted_and_the_commonest_long_ones_ranked(self) -> None:
        facts = extract(b"beta alpha beta a1 a2 a the the the the", ".txt")

        assert facts.words == 10
        assert facts.top_words == (("beta", 2), ("alpha", 1))

    def test_prose_has_headings_and_source_has_definitions(self) -> None:
        text = b"# First\n## Second ##\nclass Third:\n"

        assert extract(text, ".MD").headings == ("First", "Second")
        assert extract(text, ".py").headings == ("class Third",)

    def test_links_end_before_punctuation_and_stand_once(self) -> None:
        facts = extract(b"(https://b.example/x), https://a.example. <https://b.example/x>", ".md")

        assert facts.links == ("https://a.example", "https://b.example/x")

    def test_bytes_that_are_no_text_are_counted_and_not_refused(self) -> None:
        assert extract(b"\xff\xfe word", ".txt").words == 1


class TestPlan:
    def test_text_files_are_taken_and_nothing_else(self, directory: Path) -> None:
        assert [file.path for file in make_plan(directory).files] == ["three.txt", "two.py", "notes/one.md"]

    def test_only_what_git_tracks_is_taken_in_a_work_tree(self, directory: Path) -> None:
        for command in (["init", "-q"], ["add", "two.py"]):
            subprocess.run(["git", *command], cwd=directory, check=True)

        assert [file.path for file in make_plan(directory).files] == ["two.py"]

    def test_at_least_one_file_stumbles_and_always_the_same(self, directory: Path) -> None:
        first, second = make_plan(directory), make_plan(directory)

        assert [file.stumbles for file in first.files].count(True) == 1
        assert first == second

    def test_every_file_is_a_job_beside_the_long_text_and_the_missing_file(self, directory: Path) -> None:
        requests = make_plan(directory).requests()

        assert [request.job_type for request in requests].count("demo.slow") == 1
        paths = [request.payload["path"] for request in requests if request.job_type == "demo.digest"]
        assert sorted(paths) == sorted(["notes/one.md", "two.py", "three.txt", MISSING_PATH])


class TestLongText:
    def test_it_comes_out_alike_wherever_it_was_interrupted(self) -> None:
        text = LongText()
        for _ in range(STEPS):
            text = LongText(text.step, text.words, text.chain).next()

        assert text == read_through()

    def test_a_repeated_step_changes_the_result(self) -> None:
        once = LongText().next()

        assert replace(once, step=0).next().chain != once.next().chain


def a_job(number: int, job_type: str, payload: dict[str, object], status: JobStatus, output: object = None) -> Job:
    values = dict.fromkeys(Job.__dataclass_fields__)
    return Job(
        **values
        | {
            "job_id": UUID(int=number),
            "job_type": job_type,
            "status": status,
            "stage": JobStage.COMPLETED,
            "payload": payload,
            "output": output,
        }
    )


def attempts_of(job: Job, *outcomes: Outcome) -> tuple[Attempt, ...]:
    values = dict.fromkeys(Attempt.__dataclass_fields__)
    return tuple(
        Attempt(
            **values
            | {
                "job_id": job.job_id,
                "attempt": number,
                "outcome": outcome,
                "exit_signal": 9 if outcome is Outcome.PANICKED else None,
                "leased_at": BEGINNING,
                "finished_at": BEGINNING + timedelta(seconds=number),
            }
        )
        for number, outcome in enumerate(outcomes, start=1)
    )


def as_it_should_be(plan: Plan) -> Observation:
    """What the database says after a run in which everything went right."""
    jobs, attempts, rows = [], {}, []
    for number, file in enumerate(plan.files):
        job = a_job(number, "demo.digest", {"path": file.path}, JobStatus.SUCCEEDED)
        outcomes = [Outcome.RETRYABLE, Outcome.SUCCEEDED] if file.stumbles else [Outcome.SUCCEEDED]
        jobs.append(job)
        attempts[job.job_id] = attempts_of(job, *outcomes)
        rows.append(ResultRow(file.path, job.job_id, len(outcomes), file.facts))
    missing = a_job(1_000, "demo.digest", {"path": MISSING_PATH}, JobStatus.DEAD_LETTERED)
    text = read_through()
    output = {"text": {"step": text.step, "words": text.words, "chain": text.chain}, "resumed_at": 7}
    long = a_job(1_001, "demo.slow", {}, JobStatus.SUCCEEDED, output)
    attempts[missing.job_id] = attempts_of(missing, Outcome.TERMINAL)
    attempts[long.job_id] = attempts_of(long, Outcome.PANICKED, Outcome.SUCCEEDED)
    letter = DeadLetter(
        missing.job_id, "demo.digest", None, 1, 1, None, None, missing.payload, None, BEGINNING, missing.status
    )
    return Observation((*jobs, missing, long), attempts, tuple(rows), (letter,), Kill(pid=1, step=6))


class TestCheck:
    @pytest.fixture
    def plan(self, directory: Path) -> Plan:
        return make_plan(directory)

    def test_a_right_result_has_no_differences(self, plan: Plan) -> None:
        assert differences(plan, as_it_should_be(plan)) == []

    def test_a_changed_row_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        wrong = replace(seen.rows[0], facts=replace(seen.rows[0].facts, words=4_711))

        found = differences(plan, replace(seen, rows=(wrong, *seen.rows[1:])))

        assert found == [f"{wrong.path}: the result is not that of the plain computation"]

    def test_a_file_that_changed_meanwhile_is_told_apart_from_a_wrong_result(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        other = replace(seen.rows[0], facts=extract(b"something else", ".txt"))

        [found] = differences(plan, replace(seen, rows=(other, *seen.rows[1:])))

        assert "was changed while" in found

    def test_rows_that_are_missing_doubled_or_unasked_for_are_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        first, second, *rest = seen.rows
        stranger = replace(first, path="stranger.txt")

        found = differences(plan, replace(seen, rows=(second, second, *rest, stranger)))

        assert [line.split(": ")[1] for line in found] == [
            "its result was written 0 times and should be once",
            "its result was written 2 times and should be once",
            "there is a result and should be none",
        ]

    def test_a_row_of_another_attempt_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        late = replace(seen.rows[0], attempt=3)

        [found] = differences(plan, replace(seen, rows=(late, *seen.rows[1:])))

        assert "by another job or attempt" in found

    def test_an_attempt_too_many_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        job = seen.jobs[0]
        again = {job.job_id: attempts_of(job, Outcome.TIMEOUT, Outcome.SUCCEEDED, Outcome.SUCCEEDED)}

        [found] = differences(plan, replace(seen, attempts=dict(seen.attempts) | again))

        assert "TIMEOUT" in found

    def test_a_job_in_another_status_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        pending = replace(seen.jobs[0], status=JobStatus.PENDING)

        [found] = differences(plan, replace(seen, jobs=(pending, *seen.jobs[1:])))

        assert "is PENDING and should be SUCCEEDED" in found

    def test_a_lost_job_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)

        assert differences(plan, replace(seen, jobs=seen.jobs[1:]))[0] == "there are 4 jobs and should be 5"

    def test_a_run_without_a_kill_is_not_right(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)

        assert differences(plan, replace(seen, kill=None)) == ["no worker was killed"]

    def test_work_that_was_begun_again_instead_of_resumed_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)

        [found] = differences(plan, replace(seen, kill=Kill(pid=1, step=8)))

        assert "not resumed" in found

    def test_a_second_dead_letter_is_found(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)

        [found] = differences(plan, replace(seen, dead_letters=seen.dead_letters * 2))

        assert found.startswith("there are 2 dead letters")

    def test_a_wholly_wrong_result_is_told_in_few_lines(self, directory: Path) -> None:
        for number in range(2 * MOST_DIFFERENCES):
            (directory / f"file{number}.txt").write_text(str(number))
        plan = make_plan(directory)

        assert len(differences(plan, replace(as_it_should_be(plan), rows=()))) == MOST_DIFFERENCES + 1

    def test_a_report_is_correct_only_without_differences(self, plan: Plan) -> None:
        seen = as_it_should_be(plan)
        short = replace(seen, rows=seen.rows[1:])

        assert make_report(plan, seen, trouble=[], database_url=None).is_correct
        assert not make_report(plan, short, trouble=[], database_url=None).is_correct
        assert not make_report(plan, seen, trouble=["the worker command failed"], database_url=None).is_correct

    def test_the_verdict_comes_first_and_then_what_to_type(
        self, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delenv("MAKELEVEL", raising=False)

        _show(make_report(plan, as_it_should_be(plan), trouble=[], database_url=None), is_json=False)

        *_, verdict, advice = capsys.readouterr().err.splitlines()
        assert verdict.startswith("Right: ")
        assert advice == "`runledger demo --keep` leaves the database running, to look around"

    def test_under_make_the_advice_is_for_make(
        self, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("MAKELEVEL", "1")

        _show(make_report(plan, as_it_should_be(plan), trouble=[], database_url=None), is_json=False)

        assert "`make demo ARGS=--keep` leaves" in capsys.readouterr().err


def run_command(directory: Path, home: Path, *, setup: str = "") -> "subprocess.CompletedProcess[str]":
    """``runledger demo DIRECTORY --json`` with ``setup`` run before it, in a process of its own."""
    program = f"from runledger.cli.main import main\n{setup}\nmain()"
    return subprocess.run(
        [sys.executable, "-c", program, "demo", str(directory), "--json"],
        env=os.environ | {"RUNLEDGER_HOME": str(home), "JOBS_CLAIM_BATCH_SIZE": "not a number"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEMO_PATIENCE_SECONDS,
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all of them: its cluster is made once."""
    return tmp_path_factory.mktemp("home")


@pytest.mark.process
class TestCommand:
    def test_it_does_real_work_survives_a_kill_and_comes_out_right(self, directory: Path, home: Path) -> None:
        ended = run_command(directory, home)

        assert ended.returncode == 0, ended.stderr
        report = json.loads(ended.stdout)
        assert report["is_correct"]
        assert (report["files"], report["jobs"], report["attempts"]) == (3, 5, 7)
        assert (report["retried"], report["recovered"], report["dead_lettered"]) == (1, 1, 1)
        assert report["resumed_at_step"] > 0
        assert EmbeddedServer(home / "demo" / "pg18").status().state is ServerState.STOPPED

    def test_a_wrong_result_ends_with_exit_code_1_and_says_what_differs(self, directory: Path, home: Path) -> None:
        """The rows are tampered with on their way from the database to the check."""
        setup = """
import dataclasses
from runledger.demo import run

read_rows = run.read_rows

def tampered(connection):
    first, *rest = read_rows(connection)
    return (dataclasses.replace(first, facts=dataclasses.replace(first.facts, words=-1)), *rest)

run.read_rows = tampered
"""
        ended = run_command(directory, home, setup=setup)

        assert ended.returncode == 1
        assert "the result is not that of the plain computation" in ended.stderr
        assert not json.loads(ended.stdout)["is_correct"]

    def test_a_directory_without_text_is_a_usage_error(self, tmp_path: Path, home: Path) -> None:
        ended = run_command(tmp_path, home)

        assert ended.returncode == 2
        assert "no text file" in ended.stderr
