"""``runledger init``: what it writes runs as it stands, and nothing of anybody's is overwritten."""

import json
import os
import subprocess
import sys
from pathlib import Path

from acceptance.command_line import DEADLINE_SECONDS, clean_environment, run_program

from runledger import Ledger

ENQUEUE = """
import jobs, runledger
with runledger.Ledger.from_env() as ledger:
    print(ledger.enqueue_workflow_run(jobs.welcome("Ada")).run_id)
"""


def test_what_it_writes_runs(tmp_path: Path, empty_url: str) -> None:
    home = tmp_path / "shop"
    written = run_program("init", str(home))
    assert (written.returncode, written.stdout.decode()) == (0, f"{home / 'jobs.py'}\n")
    assert b"runledger worker --app jobs:catalog" in written.stderr
    database = {"RUNLEDGER_DATABASE_URL": empty_url}

    def run(*arguments: str) -> str:
        done = run_program(*arguments, directory=home, environment=database)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    run("migrate")
    run("definition", "sync", "--app", "jobs:catalog")
    job = run("enqueue", "greet", '{"name": "Ada"}', "--app", "jobs:catalog").strip()
    refused = run_program("enqueue", "greet", "{}", "--app", "jobs:catalog", directory=home, environment=database)
    assert refused.returncode == 2
    workflow = _python(home, empty_url, "-c", ENQUEUE)
    run("worker", "--app", "jobs:catalog", "-p", "1", "--drain")

    assert json.loads(run("job", "show", job, "--json"))["output"] == {"text": "Hello, Ada!"}
    with Ledger(empty_url) as ledger:
        assert ledger.wait_for_workflow_result(workflow, timeout_seconds=5) == {"pages": 2}


def _python(home: Path, url: str, *arguments: str) -> str:
    environment = clean_environment(RUNLEDGER_DATABASE_URL=url)
    environment["PYTHONPATH"] = f"{home}{os.pathsep}{environment['PYTHONPATH']}"
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=True
    )
    return done.stdout.strip()


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "jobs.py"
    mine.write_text("mine")

    refused = run_program("init", directory=tmp_path)

    assert (refused.returncode, refused.stdout) == (5, b"")
    assert b"jobs.py is there already" in refused.stderr
    assert mine.read_text() == "mine"


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    refused = run_program("init", "file/below", directory=tmp_path)

    assert refused.returncode == 5
    assert b"cannot write" in refused.stderr
