"""How output looks: on a terminal, in a pipe, and for whom it must not steer the terminal."""

import os
import pty
import subprocess
from datetime import UTC, datetime

import pytest
from acceptance.command_line import clean_environment, command_of, enqueued, run_command

from runledger.cli.output import one_line, printable, text_of
from runledger.cli.values import DURATION


def on_a_terminal(*arguments: str, url: str, **environment: str) -> str:
    """Standard output of the command, which is a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    given = clean_environment(RUNLEDGER_DATABASE_URL=url, TERM="xterm", COLUMNS="80", **environment)
    with subprocess.Popen(command_of(*arguments), stdout=theirs, stderr=subprocess.PIPE, env=given) as process:
        os.close(theirs)
        chunks = []
        while chunk := _read(ours):
            chunks.append(chunk)
        os.close(ours)
        process.wait(30)
    return b"".join(chunks).decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # what Linux answers when the other side has closed
        return b""


def test_a_terminal_gets_headings_and_colors_and_a_pipe_gets_neither(own_url: str) -> None:
    job_id = enqueued(own_url, "mail.receipt")
    shown = on_a_terminal("job", "list", url=own_url)
    assert shown.startswith("\x1b[1mID ")
    assert "\x1b[34mPENDING\x1b[0m" in shown
    assert run_command("job", "list", url=own_url).stdout.startswith(f"{job_id}\tmail.receipt\tPENDING\t")
    assert "\x1b" not in on_a_terminal("job", "list", url=own_url, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal("job", "list", "--color", "never", url=own_url, FORCE_COLOR="1")


def test_forced_colors_reach_a_pipe_on_standard_error() -> None:
    assert "\x1b[31mError:" in run_command("job", "list", FORCE_COLOR="1").stderr
    assert "\x1b[31mError:" in run_command("job", "list", "--color", "always", NO_COLOR="1").stderr
    assert "\x1b" not in run_command("job", "list").stderr


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (True, "yes"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        ({"a": ["ü", None]}, '{"a":["ü",null]}'),
        ("a\tb\nc\x1b[2J\x9b\u2028", "a\\tb\\nc\\x1b[2J\\x9b\\x2028"),
    ],
)
def test_a_cell_is_one_line_that_steers_nothing(value: object, text: str) -> None:
    assert text_of(value) == text


def test_a_message_stays_one_line() -> None:
    assert one_line("first\n  second\r\nthird") == "first second third"
    assert printable("\ud800") == "\\xd800"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("500ms", 0.5), ("1.5h", 5_400.0), ("2d", 172_800.0), ("5m", 300.0)]
)
def test_a_duration_is_a_number_with_a_unit(text: str, seconds: float) -> None:
    assert DURATION.convert(text, None, None) == seconds
