"""The how-to of workflows as a stranger follows it: its files are written, a worker is started, its program is run. The
drawing of the page is that of its run; RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it anew."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from acceptance.command_line import clean_environment, command_of, run_command, run_program

from runledger import (
    Ledger,
    Scope,
    WorkflowDagBuilder,
    WorkflowRunStatus,
    cancel_workflow_run,
    get_workflow_run,
    list_workflow_steps,
    migrate,
)

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "workflows.md"
FILES = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
[BLOCK] = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(line, comments=True)[1:] for line in BLOCK.splitlines()]
PROGRAMS = ["ingest.py", "recover.py"]
SURVEY = ["survey.py", "survey_start.py"]
PATIENCE_SECONDS = 60
DRAWING = re.compile(r"(?<=^```mermaid\n).+?(?=^```)", re.MULTILINE | re.DOTALL)
THE_RUN = "SELECT id::text FROM runledger.workflow_runs WHERE workflow_type = 'document.ingest'"


def test_the_example_of_the_page_runs(own_url: str, tmp_path: Path) -> None:
    environment = _place_with_its_files(own_url, tmp_path)
    worker = subprocess.Popen(
        command_of("worker", "--app", "documents:catalog", "-p", "1"),
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        for name in PROGRAMS:
            program = subprocess.run(
                [sys.executable, name], cwd=tmp_path, env=environment, timeout=PATIENCE_SECONDS, capture_output=True
            )
            assert program.returncode == 0, program.stderr.decode()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_SECONDS)
    assert sorted(name for name, _ in FILES) == sorted(["documents.py", *PROGRAMS, *SURVEY])
    if os.environ.get("RUNLEDGER_UPDATE_SNAPSHOTS"):
        PAGE.write_text(DRAWING.sub(lambda _: _drawn(own_url), PAGE.read_text()))
    assert DRAWING.findall(PAGE.read_text()) == [_drawn(own_url)], "stale; RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it anew"


def test_the_steps_that_a_step_finds_are_run_and_collected(own_url: str, tmp_path: Path) -> None:
    environment = _place_with_its_files(own_url, tmp_path)
    run_program("definition", "sync", "--app", "survey:catalog", directory=tmp_path, environment=environment)
    started = subprocess.run(
        [sys.executable, "survey_start.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=PATIENCE_SECONDS,
    )
    run_id = started.stdout.decode().strip()

    drained = run_program(
        "worker", "--app", "survey:catalog", "--drain", "-p", "2", directory=tmp_path, environment=environment
    )

    assert drained.returncode == 0, drained.stderr.decode()
    with psycopg.connect(own_url) as connection:
        assert get_workflow_run(connection, run_id, scope=Scope.any()).status is WorkflowRunStatus.SUCCEEDED
        steps = {one.step_key: one for one in list_workflow_steps(connection, run_id, scope=Scope.any())}
    assert steps["total"].output == 6
    assert sorted(steps) == ["find", "found", "size-0", "size-1", "size-2", "total"]


def test_the_commands_of_the_page_do_something(own_url: str, tmp_path: Path) -> None:
    _place_with_its_files(own_url, tmp_path)
    request = WorkflowDagBuilder("document.ingest").job("crawl", "doc.crawl").external("approve")
    request = request.job("publish", "doc.publish").after_success("publish", ["crawl", "approve"]).build()
    only_a_gate = WorkflowDagBuilder("document.sign").external("approve").build()
    with Ledger(own_url) as ledger:
        ledger.enqueue_workflow_run(only_a_gate)
        live, ended = (str(ledger.enqueue_workflow_run(request).run_id) for _ in range(2))
        with ledger.begin() as connection:
            cancel_workflow_run(connection, run_id=ended, reason="so that it can be run again")
    assert {words[1] for words in COMMANDS} == {"list", "show", "graph", "explain", "rerun", "complete-step", "cancel"}

    for words in COMMANDS:
        run = ended if words[1] == "rerun" else live
        result = run_command(*[run if word == "RUN" else word for word in words], url=own_url)
        assert result.exit_code == 0, result.stderr
        assert result.stdout or result.stderr, words


def _place_with_its_files(url: str, place: Path) -> dict[str, str]:
    """The page's files stand there and its job types are stored; answers with the environment of its programs."""
    migrate(url)
    for name, text in FILES:
        (place / name).write_text(text)
    environment = clean_environment(RUNLEDGER_DATABASE_URL=url)
    environment["PYTHONPATH"] += f"{os.pathsep}{place}"
    sync = ("definition", "sync", "--app", "documents:catalog")
    synced = run_program(*sync, directory=place, environment=environment)
    assert synced.returncode == 0, synced.stderr.decode()
    return environment


def _drawn(url: str) -> str:
    """What the page's own command draws of the page's first run."""
    with psycopg.connect(url, autocommit=True) as connection:
        [(run_id,)] = connection.execute(THE_RUN).fetchall()
    environment = {"RUNLEDGER_DATABASE_URL": url}
    drawing = run_program("workflow", "graph", run_id, "--format", "mermaid", environment=environment)
    assert drawing.returncode == 0, drawing.stderr.decode()
    return drawing.stdout.decode()
