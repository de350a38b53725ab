"""The how-to of workflows as a stranger follows it: its files are written, a worker is started, its program is run. The
drawing of the page is that of its run; RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it anew."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from acceptance.command_line import clean_environment, command_of, run_program

from runledger import migrate

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "workflows.md"
PROGRAMS = ["ingest.py", "recover.py"]
PATIENCE_SECONDS = 60
DRAWING = re.compile(r"(?<=^```mermaid\n).+?(?=^```)", re.MULTILINE | re.DOTALL)
THE_RUN = "SELECT id::text FROM runledger.workflow_runs WHERE workflow_type = 'document.ingest'"


def test_the_example_of_the_page_runs(own_url: str, tmp_path: Path) -> None:
    migrate(own_url)
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text)
    environment = clean_environment(RUNLEDGER_DATABASE_URL=own_url)
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    sync = ("definition", "sync", "--app", "documents:catalog")
    synced = run_program(*sync, directory=tmp_path, environment=environment)
    assert synced.returncode == 0, synced.stderr.decode()
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
    assert [name for name, _ in files] == ["documents.py", *PROGRAMS]
    if os.environ.get("RUNLEDGER_UPDATE_SNAPSHOTS"):
        PAGE.write_text(DRAWING.sub(lambda _: _drawn(own_url), PAGE.read_text()))
    assert DRAWING.findall(PAGE.read_text()) == [_drawn(own_url)], "stale; RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it anew"


def _drawn(url: str) -> str:
    """What the page's own command draws of the page's first run."""
    with psycopg.connect(url, autocommit=True) as connection:
        [(run_id,)] = connection.execute(THE_RUN).fetchall()
    environment = {"RUNLEDGER_DATABASE_URL": url}
    drawing = run_program("workflow", "graph", run_id, "--format", "mermaid", environment=environment)
    assert drawing.returncode == 0, drawing.stderr.decode()
    return drawing.stdout.decode()
