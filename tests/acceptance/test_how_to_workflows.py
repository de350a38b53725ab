"""The how-to of workflows as a stranger follows it: its files are written, a worker is started, its program is run."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
from acceptance.command_line import clean_environment, command_of
from postgres.observing import until

from runledger import migrate

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "workflows.md"
PROGRAMS = ["ingest.py", "recover.py"]
PATIENCE_SECONDS = 60


def test_the_example_of_the_page_runs(own_url: str, tmp_path: Path) -> None:
    migrate(own_url)
    files = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    for name, text in files:
        (tmp_path / name).write_text(text)
    environment = clean_environment(RUNLEDGER_DATABASE_URL=own_url)
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    worker = subprocess.Popen(
        command_of("worker", "--app", "documents:catalog", "-p", "1"),
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_definitions(own_url)
        for name in PROGRAMS:
            program = subprocess.run(
                [sys.executable, name], cwd=tmp_path, env=environment, timeout=PATIENCE_SECONDS, capture_output=True
            )
            assert program.returncode == 0, program.stderr.decode()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(PATIENCE_SECONDS)
    assert [name for name, _ in files] == ["documents.py", *PROGRAMS]


def _wait_for_definitions(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        query = "SELECT count(*) FROM runledger.job_definitions WHERE job_type LIKE 'doc.%'"
        until(lambda: connection.execute(query).fetchone() == (6,))
