"""Hostile command lines, by name: each ends with a documented code and one clean line, and nothing is written."""

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from acceptance.command_line import OURS, clean_environment, run_program
from acceptance.shop import catalog

from runledger import Ledger
from runledger.cli.main import run

USAGE, NOT_FOUND, REFUSED, UNAVAILABLE, CONFIGURATION = 2, 4, 5, 69, 78
SECRET = "hunter2-correct-horse"
NOBODY = "0198c0de-0000-7000-8000-000000000000"
APPS = {
    "raises": 'raise RuntimeError("the configuration\\nis missing")',
    "exits": "import sys; sys.exit(0)",
    "mistaken": "catalog = = 1",
}
"""Modules that do not import, by name."""

COMMANDS: dict[str, tuple[list[str], int]] = {
    "C02 no such command": (["frobnicate"], USAGE),
    "C02b no such subcommand": (["job", "frobnicate"], USAGE),
    "C02c no such option": (["job", "list", "--frobnicate"], USAGE),
    "C02d an option in front": (["--quiet", "job", "list"], USAGE),
    "C02e too many arguments": (["job", "show", NOBODY, NOBODY], USAGE),
    "C02f too few": (["job", "show"], USAGE),
    "C05 a payload that is no JSON": (["enqueue", "mail.receipt", "{nope"], USAGE),
    "C05b single quotes": (["enqueue", "mail.receipt", "{'a': 1}"], USAGE),
    "C05c NaN": (["enqueue", "mail.receipt", '{"a": NaN}'], USAGE),
    "C05d two documents": (["enqueue", "mail.receipt", "{} {}"], USAGE),
    "C05e an escaped NUL": (["enqueue", "mail.receipt", r'{"a": "\u0000"}'], USAGE),
    "C05f an escaped surrogate": (["enqueue", "mail.receipt", r'{"a": "\ud800"}'], USAGE),
    "C05g a number of 5,000 digits": (["enqueue", "mail.receipt", "9" * 5_000], USAGE),
    "C05h depth 20,000": (["enqueue", "mail.receipt", "[" * 20_000 + "]" * 20_000], USAGE),
    "C05i a file that is not there": (["enqueue", "mail.receipt", "@/no/such/file"], USAGE),
    "C05j a directory": (["enqueue", "mail.receipt", "@/tmp"], USAGE),
    "C05k a byte order mark and junk": (["enqueue", "mail.receipt", "\ufeff{,}"], USAGE),
    "C05l nothing": (["enqueue", "mail.receipt", ""], USAGE),
    "C08 a type that nobody stored": (["enqueue", "nobody.knows"], REFUSED),
    "C08b a disabled type": (["enqueue", "report.old"], REFUSED),
    "C08c an empty type": (["enqueue", ""], USAGE),
    "C08d SQL as a type": (["enqueue", "'; DROP TABLE job_queue; --"], REFUSED),
    "C09 a limit of junk": (["job", "list", "--limit", "abc"], USAGE),
    "C09b a limit of zero": (["job", "list", "--limit", "0"], USAGE),
    "C09c a limit of 10^9": (["job", "list", "--limit", "1000000000"], USAGE),
    "C09d a limit of -1": (["job", "list", "--limit", "-1"], USAGE),
    "C09e a limit of 1e2": (["job", "list", "--limit", "1e2"], USAGE),
    "C10 a page of no job": (["job", "list", "--before", "junk"], USAGE),
    "C10b a status of no kind": (["job", "list", "--status", "done"], USAGE),
    "C10c an organization of no kind": (["job", "list", "--organization", "acme"], USAGE),
    "C11 an id that is none": (["job", "show", "junk"], NOT_FOUND),
    "C11b an id of nobody": (["job", "show", NOBODY], NOT_FOUND),
    "C11c SQL as an id": (["job", "cancel", "' OR 1=1 --", "--yes"], NOT_FOUND),
    "C11d a path as an id": (["job", "show", "../../etc/passwd"], NOT_FOUND),
    "C11e a run of nobody": (["workflow", "show", NOBODY], NOT_FOUND),
    "C11f a gate of nobody": (["workflow", "show", "junk"], NOT_FOUND),
    "C11g a schedule of nobody": (["schedule", "pause", "nobody"], NOT_FOUND),
    "C14 a duration of junk": (["enqueue", "mail.receipt", "--in", "soon"], USAGE),
    "C14b a negative duration": (["enqueue", "mail.receipt", "--in=-5"], USAGE),
    "C14c a time without a zone": (["enqueue", "mail.receipt", "--at", "2027-01-01T00:00:00"], USAGE),
    "C14d a time of junk": (["enqueue", "mail.receipt", "--at", "tomorrow"], USAGE),
    "C14e a duration in fullwidth": (["enqueue", "mail.receipt", "--in", "\uff15"], USAGE),
    "C15 an app of no module": (["worker", "--app", "no.such.module:catalog", "--check"], CONFIGURATION),
    "C16 an app of no attribute": (["worker", "--app", "acceptance.shop:nope", "--check"], CONFIGURATION),
    "C17 an app that is no catalog": (["worker", "--app", "acceptance.shop:not_a_catalog", "--check"], CONFIGURATION),
    "C18 an app that raises": (["worker", "--app", "raises:catalog", "--check"], CONFIGURATION),
    "C19 an app that exits": (["worker", "--app", "exits:catalog", "--check"], CONFIGURATION),
    "C20 an app with a mistake": (["worker", "--app", "mistaken:catalog", "--check"], CONFIGURATION),
    "C23 a path to an app": (["worker", "--app", "./apps/raises.py:catalog", "--check"], CONFIGURATION),
    "C24 a command as an app": (["worker", "--app", "os;system:x", "--check"], CONFIGURATION),
    "C24b a call as an app": (["worker", "--app", "os:system('id')", "--check"], CONFIGURATION),
    "C24c dunder as an app": (["worker", "--app", "os:__dict__", "--check"], CONFIGURATION),
    "C26 no colon": (["worker", "--app", "acceptance.shop", "--check"], CONFIGURATION),
    "C27 a relative module": (["worker", "--app", "..pkg:catalog", "--check"], CONFIGURATION),
    "C27b a colon alone": (["worker", "--app", ":", "--check"], CONFIGURATION),
    "C27c NUL": (["worker", "--app", "a\0b:c", "--check"], CONFIGURATION),
    "C28 no app": (["worker"], USAGE),
    "C29 minus one process": (["worker", "--app", "acceptance.shop:catalog", "-p", "-1", "--check"], CONFIGURATION),
    "C29b a million processes": (
        ["worker", "--app", "acceptance.shop:catalog", "-p", "1000000", "--check"],
        CONFIGURATION,
    ),
    "C30 a schema with a quote": (["job", "list", "--schema", 'a"b'], CONFIGURATION),
    "C30b SQL as a schema": (["job", "list", "--schema", "x; DROP SCHEMA runledger"], CONFIGURATION),
    "C30c a schema of nobody": (["job", "list", "--schema", "nobody"], CONFIGURATION),
    "C31 a shell of no kind": (["completion", "powershell"], USAGE),
    "C32 a log level of no kind": (["worker", "--app", "acceptance.shop:catalog", "--log-level", "loud"], USAGE),
}
URLS: dict[str, tuple[str, int]] = {
    "D02 a wrong scheme": (f"mysql://me:{SECRET}@h/x", CONFIGURATION),
    "D03 port abc": (f"postgresql://me:{SECRET}@h:abc/x", CONFIGURATION),
    "D04 nobody listens": (f"postgresql://me:{SECRET}@127.0.0.1:1/x", UNAVAILABLE),
    "D08 a line end": (f"postgresql://me:{SECRET}@h/\nx", CONFIGURATION),
    "D17 no such socket": (f"postgresql://me:{SECRET}@/x?host=/no/such", UNAVAILABLE),
    "D18 an option of no kind": (f"postgresql://me:{SECRET}@h/x?a={SECRET}", CONFIGURATION),
    "D19 a URL of a megabyte": (f"postgresql://me:{SECRET}@h:abc/" + "x" * 1_000_000, CONFIGURATION),
}
SETTINGS: dict[str, tuple[dict[str, str], int]] = {
    "V01 a word": ({"JOBS_LEASE_TTL_SECONDS": "abc"}, CONFIGURATION),
    "V06 fullwidth digits": ({"JOBS_POLL_INTERVAL_MS": "\uff15\uff10\uff10"}, CONFIGURATION),
    "V11 below its limit": ({"JOBS_LEASE_TTL_SECONDS": "1"}, CONFIGURATION),
    "V24 an escape in the worker id": ({"JOBS_WORKER_ID": "\x1b[2J"}, CONFIGURATION),
    "V25 a schema with a quote": ({"RUNLEDGER_SCHEMA": '"'}, CONFIGURATION),
}


@dataclass
class Called:
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def url(database_url: str) -> str:
    with Ledger(database_url) as ledger, ledger.begin() as connection:
        catalog.sync_definitions(connection)
    return database_url


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("apps")
    for name, text in APPS.items():
        (directory / f"{name}.py").write_text(text + "\n")
    return directory


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, url: str, apps: Path) -> Any:
    """The command in this process, through the function that the installed script calls."""
    for name in os.environ:
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("RUNLEDGER_DATABASE_URL", url)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.syspath_prepend(str(apps))

    def called(*arguments: str) -> Called:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run(list(arguments))
        return Called(int(code), out.getvalue(), err.getvalue())

    return called


def tables(url: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(
            "SELECT (SELECT count(*) FROM runledger.job_queue), (SELECT count(*) FROM runledger.job_definitions),"
            " (SELECT count(*) FROM runledger.job_schedules)"
        ).fetchall()


def assert_one_clean_line(called: Called, code: int) -> None:
    lines = called.err.strip().splitlines()
    *talk, last = lines
    assert (called.code, called.out) == (code, ""), called.err
    assert last.startswith("Error: "), called.err
    assert all(line.startswith("target: ") for line in talk), called.err
    assert last.isprintable()
    assert len(last) < 500
    assert "Traceback" not in called.err
    assert SECRET not in called.err


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_cannot_be_done_says_why_in_one_line(call: Any, url: str, name: str) -> None:
    arguments, code = COMMANDS[name]
    before = tables(url)

    assert_one_clean_line(call(*arguments), code)
    told = call(*arguments, "--json")

    assert told.code == code
    assert set(json.loads(told.err)["error"]) == {"code", "message", "hint"}
    assert tables(url) == before


@pytest.mark.parametrize("name", URLS)
def test_a_database_that_is_not_there_is_one_line_without_the_password(call: Any, name: str) -> None:
    database_url, code = URLS[name]

    for arguments in (["job", "list"], ["migrate"], ["enqueue", "mail.receipt", "-v"]):
        called = call(*arguments, "-d", database_url)
        assert called.code == code
        assert SECRET not in called.err + called.out
        assert "Traceback" not in called.err
        assert max(len(line) for line in called.err.splitlines()) < 500


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_does_not_parse_is_one_line(call: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    environment, code = SETTINGS[name]
    for variable, text in environment.items():
        monkeypatch.setenv(variable, text)

    assert_one_clean_line(call("worker", "--app", "acceptance.shop:catalog", "--check"), code)


SAMPLE = ("C05h depth 20,000", "C18 an app that raises", "C19 an app that exits", "C24b a call as an app")


@pytest.mark.process
@pytest.mark.parametrize("name", SAMPLE)
def test_a_process_says_the_same(url: str, apps: Path, name: str) -> None:
    arguments, code = COMMANDS[name]

    done = run_program(*arguments, directory=apps, environment={"RUNLEDGER_DATABASE_URL": url})

    assert_one_clean_line(Called(done.returncode, done.stdout.decode(), done.stderr.decode()), code)


@pytest.mark.process
def test_a_module_in_the_current_directory_replaces_none_of_the_standard_library(tmp_path: Path) -> None:
    """C25: the directory comes last on the path."""
    for name in ("json", "psycopg", "signal", "logging", "click"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hijacked')\n")
    (tmp_path / "own.py").write_text("from runledger import JobCatalog\ncatalog = JobCatalog()\n")

    done = subprocess.run(
        [Path(sys.executable).with_name("runledger"), "worker", "--app", "own:catalog", "--check"],
        cwd=tmp_path,
        env=clean_environment(DATABASE_URL="postgresql://h:1/x"),
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert b"hijacked" not in done.stdout + done.stderr
    assert done.returncode == UNAVAILABLE
