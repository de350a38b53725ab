"""The README as a stranger follows it: its code is pasted, its commands are typed, its names exist."""

import importlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from pathlib import Path

import psycopg
import pytest

import runledger
from runledger import Job, JobStatus, Ledger, Scope, list_jobs
from runledger.postgres.stats import get_queue_stats
from runledger.testing import databases

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text()
COMMAND_PATIENCE_SECONDS = 60
JOB_PATIENCE_SECONDS = 30
MOST_LOOKS = 600

needs_repository = pytest.mark.skipif(not (REPOSITORY / "Makefile").exists(), reason="the sdist has no Makefile")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Every command of every shell block, without its comment."""
    lines = (line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines())
    return [line for line in lines if line]


def table_names() -> list[str]:
    """What the second column of the table of APIs names."""
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", README.partition("## Which API")[2], re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([A-Za-z_.]+)`", row)]
    return [name for name in names if name not in ("idempotency_key", "active_key", "delay", "next_run_at")]


def make_targets() -> list[str]:
    """What the README tells people to make."""
    return sorted({word for line in commands() if line.startswith("make ") for word in line.split()[1:]})


@pytest.fixture
def empty_database(server_url: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url) as url:
        yield url


def environment(url: str) -> dict[str, str]:
    return os.environ | {"RUNLEDGER_DATABASE_URL": url}


def typed(command: str) -> list[str]:
    """The command as this interpreter runs it."""
    program, *arguments = command.split()
    assert program == "runledger"
    return [sys.executable, "-m", "runledger", *arguments]


@contextmanager
def running(command: str, place: Path, url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The command runs inside the block, and is told to stop at its end."""
    process = subprocess.Popen(typed(command), cwd=place, env=environment(url), stdin=subprocess.DEVNULL)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(COMMAND_PATIENCE_SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_until_defined(ledger: Ledger, job_type: str) -> None:
    """Returns when a worker has stored the definition."""
    for _ in range(MOST_LOOKS):
        with ledger.database.autocommit() as connection:
            if any(one.job_type == job_type for one in get_queue_stats(connection)):
                return
        time.sleep(JOB_PATIENCE_SECONDS / MOST_LOOKS)
    raise AssertionError(f"no worker has stored {job_type}")


@pytest.mark.process
def test_the_code_and_the_two_commands_of_the_first_screen_work(empty_database: str, tmp_path: Path) -> None:
    [code] = blocks("python")
    migrate, worker = commands()[:2]
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "jobs.py").write_text(code)
    subprocess.run(
        typed(migrate), cwd=tmp_path, env=environment(empty_database), check=True, timeout=COMMAND_PATIENCE_SECONDS
    )
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE TABLE orders (email text NOT NULL)")

    with running(worker, tmp_path, empty_database), Ledger(empty_database) as ledger:
        wait_until_defined(ledger, "mail.receipt")
        with psycopg.connect(empty_database) as connection:
            namespace = {"__name__": "myapp.jobs"}
            exec(compile(code, "README.md", "exec"), namespace)
            namespace["place_order"](connection, "ada@example.org")  # type: ignore[operator]
        [job] = jobs_of(empty_database)
        ended = ledger.wait_for_job(job.job_id, timeout_seconds=JOB_PATIENCE_SECONDS)

    assert ended.status is JobStatus.SUCCEEDED
    assert ended.output == {"sent_to": "ada@example.org", "attempt": 1}


def jobs_of(url: str) -> list[Job]:
    with psycopg.connect(url) as connection:
        return list_jobs(connection, scope=Scope.any())


def test_the_order_and_its_job_roll_back_together(database_url: str) -> None:
    [code] = blocks("python")
    namespace: dict[str, object] = {"__name__": "myapp.jobs"}
    exec(compile(code, "README.md", "exec"), namespace)
    with psycopg.connect(database_url) as connection:
        connection.execute("CREATE TABLE orders (email text NOT NULL)")
        namespace["catalog"].sync_definitions(connection)  # type: ignore[attr-defined]
        connection.commit()
        with connection.transaction(force_rollback=True):
            namespace["place_order"](connection, "ada@example.org")  # type: ignore[operator]

        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    assert jobs_of(database_url) == []


@pytest.mark.parametrize("name", table_names())
def test_a_name_of_the_table_exists(name: str) -> None:
    if name.startswith("runledger."):
        importlib.import_module(name)
        return
    first, *rest = name.split(".")

    assert first in runledger.__all__
    assert reduce(getattr, rest, getattr(runledger, first)) is not None


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(runledger [a-z]+)`", README))))
def test_a_command_of_the_text_exists(command: str, tmp_path: Path) -> None:
    help_wanted = [*typed(command), "--help"]

    assert subprocess.run(help_wanted, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0


@needs_repository
@pytest.mark.parametrize("target", make_targets())
def test_a_make_target_exists(target: str) -> None:
    rehearsed = subprocess.run(["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)

    assert rehearsed.returncode == 0, rehearsed.stderr


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_a_link_leads_somewhere(link: str) -> None:
    assert (REPOSITORY / link).exists()


@needs_repository
def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    assert "make check test" in commands()
    assert "make check test" in (REPOSITORY / ".ci" / "run").read_text()


def test_nobody_is_told_to_install_somebody_elses_distribution() -> None:
    assert not re.search(r"install\s+['\"]?runledger\b(?!-pg)", README)
