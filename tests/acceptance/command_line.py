"""Calling the command line: in a process of its own for what only a process shows, in this one for the rest."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from runledger.cli.main import root

REPOSITORY = Path(__file__).parents[2]
APP = "acceptance.shop:catalog"
DEADLINE_SECONDS = 30
OURS = ("RUNLEDGER_", "JOBS_", "DATABASE_URL", "NO_COLOR", "FORCE_COLOR", "PG", "LC_", "LANG", "COLUMNS")

Completed = subprocess.CompletedProcess[bytes]


def clean_environment(**given: str) -> dict[str, str]:
    """The environment of this process without anything that steers the command, then ``given``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return kept | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"} | given


def command_of(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-m", "runledger", *arguments]


def run_program(
    *arguments: str | bytes, stdin: bytes = b"", directory: Path | None = None, environment: Mapping[str, str] = {}
) -> Completed:
    """``runledger ARGUMENTS`` in a process of its own."""
    return subprocess.run(
        command_of(*arguments),
        input=stdin,
        capture_output=True,
        cwd=directory,
        env=clean_environment(**environment),
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def run_command(
    *arguments: str, url: str | None = None, stdin: str | bytes | None = None, **environment: str
) -> Result:
    """The same in this process: faster, and with the same exit codes for all that a subcommand says itself."""
    variables: dict[str, str | None] = {name: None for name in os.environ if name.startswith(OURS)}
    variables |= environment
    if url is not None:
        variables["RUNLEDGER_DATABASE_URL"] = url
    return CliRunner().invoke(root, list(arguments), input=stdin, env=variables, prog_name="runledger")


def document_of(result: Result) -> Any:
    """What ``--json`` printed: exactly one document."""
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def enqueued(url: str, *arguments: str) -> str:
    """The id of a job that the command line enqueued."""
    result = run_command("enqueue", *arguments, url=url)
    assert result.exit_code == 0, result.stderr
    return result.stdout.strip()
