"""``runledger dev``: a stranger writes a handler, changes it, and sees the change; Ctrl-C ends all of it."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from acceptance.command_line import clean_environment, command_of

from runledger import Ledger, RunledgerError
from runledger.cli.dev import stamps_below
from runledger.embedded import EmbeddedServer

PATIENCE_SECONDS = 90

HANDLER = """
from runledger import JobCatalog

catalog = JobCatalog()


@catalog.job("answer")
def answer(context, payload):
    return {number}
"""


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def write(path: Path, number: int) -> None:
    path.write_text(HANDLER.replace("{number}", str(number)))
    os.utime(path, ns=(number * 1_000_000_000, number * 1_000_000_000))  # two writes in one tick of the clock differ


def answer_of(url: str) -> object:
    with Ledger(url) as ledger:
        try:
            job = ledger.enqueue("answer")
        except RunledgerError:  # the schema, or the definition, is not there yet
            return None
        return ledger.wait_for_job(job.job_id, timeout_seconds=PATIENCE_SECONDS).output


@pytest.mark.process
def test_a_changed_file_is_what_runs_next_and_a_request_to_stop_ends_everything(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path / "jobs.py", 1)
    process = subprocess.Popen(
        command_of("dev", "--app", "jobs:catalog", "-p", "1"),
        cwd=tmp_path,
        env=clean_environment(RUNLEDGER_DATABASE_URL=empty_url),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: answer_of(empty_url) == 1, "the first version never ran")
        write(tmp_path / "jobs.py", 2)
        until(lambda: answer_of(empty_url) == 2, "the second version never ran")
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, said.decode()
    assert b"changed: jobs.py" in said


@pytest.mark.process
def test_a_broken_file_is_waited_for_with_the_old_code_or_without_a_worker(tmp_path: Path) -> None:
    said = tmp_path / "said.log"
    write(tmp_path / "jobs.py", 1)
    with said.open("wb") as errors:
        process = subprocess.Popen(
            command_of("dev", "--app", "jobs:catalog", "-p", "1", "--log-format", "json"),
            cwd=tmp_path,
            env=clean_environment(RUNLEDGER_HOME=str(tmp_path / "home"), JOBS_WORKER_ID="dev"),
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        until(lambda: "for other terminals: " in said.read_text(), "the line to export was never printed")
        url = exported(said.read_text())
        until(lambda: answer_of(url) == 1, "the first version never ran")
        (tmp_path / "jobs.py").write_text("def (\n")
        until(lambda: "workers.not_replaced" in said.read_text(), "nobody said that the file is broken")
        assert answer_of(url) == 1
        os.kill(pid_of_worker(url), signal.SIGKILL)
        until(lambda: "the worker ended with 78; waiting for a change" in said.read_text(), "dev looks dead")
        write(tmp_path / "jobs.py", 2)
        until(lambda: answer_of(url) == 2, "the repaired version never ran")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)
        EmbeddedServer(tmp_path / "home" / "pg18").destroy()
    assert process.returncode == 0, said.read_text()


def exported(said: str) -> str:
    """The URL that a shell has after the line that was printed."""
    [line] = [one for one in said.splitlines() if one.startswith("for other terminals: ")]
    command = f'{line.partition(": ")[2]}; printf %s "$RUNLEDGER_DATABASE_URL"'
    return subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True).stdout


def pid_of_worker(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pid FROM runledger.job_workers").fetchone()
    assert row is not None
    return int(row[0])


def test_files_of_packages_and_environments_are_not_followed(tmp_path: Path) -> None:
    for name in ("jobs.py", "shop/models.py", ".hidden/x.py", "venv/lib/x.py", "node_modules/x.py", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "venv" / "pyvenv.cfg").touch()

    followed = {Path(path).relative_to(tmp_path).as_posix() for path in stamps_below(tmp_path)}

    assert followed == {"jobs.py", "shop/models.py"}
