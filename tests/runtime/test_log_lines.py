"""What a failed attempt leaves in the log: one line, and the traceback that is stored, in either format."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from runtime.benches import Bench

from runledger import JobCatalog, JobContext
from runledger.core.gate import TRACEBACK_LIMIT
from runledger.runtime.logs import configure_logs, log

FORGED = "Traceback:\n  one\n12:00:00 error   forged\r12:00:01 error   forged\u2028{}\n"


@pytest.fixture
def restored() -> Iterator[None]:
    logger = logging.getLogger("runledger")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def fail_with_secret(make_bench: Callable[..., Bench]) -> tuple[Bench, str]:
    catalog = JobCatalog(max_attempts=2)

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> None:
        raise KeyError("to")

    bench = make_bench(catalog)
    return bench, bench.run("test", {"card": "s3cr3t"})


@pytest.mark.usefixtures("restored")
def test_the_line_of_a_failed_attempt_shows_where_it_failed_for_a_terminal(
    make_bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("info", "text")

    fail_with_secret(make_bench)

    said = capsys.readouterr().err
    line, *trace = said[said.index("job.retry_scheduled") :].splitlines()
    assert "code=exception.KeyError" in line
    assert "traceback=" not in line
    assert trace[0] == "    Traceback (most recent call last):"
    assert any("test_log_lines.py" in one for one in trace)
    assert trace[-1] == "    KeyError: 'to'"
    assert "s3cr3t" not in said


@pytest.mark.usefixtures("restored")
def test_the_line_of_a_failed_attempt_carries_what_is_stored_for_machines(
    make_bench: Callable[..., Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logs("info", "json")

    bench, job_id = fail_with_secret(make_bench)

    [said] = [one for one in map(json.loads, capsys.readouterr().err.splitlines()) if "retry" in one["event"]]
    [attempt] = bench.attempts(job_id)
    assert said["traceback"] == attempt.traceback
    assert "s3cr3t" not in json.dumps(said)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_traceback_cannot_forge_a_line_and_is_bounded(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs("info", log_format)

    log(logging.ERROR, "job.dead_lettered", traceback=FORGED * 10_000)

    said = capsys.readouterr().err
    assert len(said) < TRACEBACK_LIMIT * 2
    first, *rest = said.rstrip("\n").split("\n")
    assert "job.dead_lettered" in first
    assert [one for one in rest if not one.startswith("    ")] == []


@pytest.mark.usefixtures("restored")
def test_a_line_without_a_traceback_says_nothing_of_one(capsys: pytest.CaptureFixture[str]) -> None:
    for log_format in ("text", "json"):
        configure_logs("info", log_format)
        log(logging.INFO, "job.retry_scheduled", traceback=None)

    assert "traceback" not in capsys.readouterr().err
