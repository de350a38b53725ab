"""Where a failed job shows why: its traceback, whole, wherever somebody looks."""

from dataclasses import replace

from acceptance.command_line import document_of, run_command
from acceptance.test_cli_output import on_a_terminal

from runledger import Ledger
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_leased_job, dead_lettered

TRACEBACK = """Traceback (most recent call last):
  File "mail.py", line 7, in send
    payload["to"]\x1b[2J
KeyError: 'to'
"""
SHOWN = [
    "attempt 1 of run 1 ended as TERMINAL:",
    "  Traceback (most recent call last):",
    '    File "mail.py", line 7, in send',
    '      payload["to"]\\x1b[2J',
    "  KeyError: 'to'",
]


def a_failed_job(url: str) -> str:
    with Ledger(url) as ledger, ledger.begin() as connection:
        job = a_leased_job(connection, "mail.receipt")
        ended = dead_lettered(job, code="exception.KeyError", message="'to'" + " and more" * 10)
        settle_jobs(connection, [replace(ended, traceback=TRACEBACK)])
    return job.job_id


def test_a_job_that_failed_is_shown_with_its_last_traceback(own_url: str) -> None:
    job_id = a_failed_job(own_url)
    assert run_command("job", "show", job_id, url=own_url).stdout.splitlines()[-5:] == SHOWN
    waited = run_command("job", "wait", job_id, url=own_url)
    assert (waited.exit_code, waited.stdout.splitlines()[-5:]) == (3, SHOWN)
    assert "traceback" not in document_of(run_command("job", "show", job_id, "--json", url=own_url))


def test_attempts_print_their_tracebacks_when_they_are_asked_to(own_url: str) -> None:
    job_id = a_failed_job(own_url)
    assert "Traceback" not in run_command("job", "attempts", job_id, url=own_url).stdout
    assert run_command("job", "attempts", job_id, "--traceback", url=own_url).stdout.splitlines()[-5:] == SHOWN
    [attempt] = document_of(run_command("job", "attempts", job_id, "--traceback", "--json", url=own_url))["attempts"]
    assert attempt["traceback"] == TRACEBACK


def test_the_advice_about_a_failed_job_shows_its_traceback(own_url: str) -> None:
    job_id = a_failed_job(own_url)
    advice = document_of(run_command("job", "explain", job_id, "--json", url=own_url))["advice"][0]
    assert advice.split()[1:] == ["job", "attempts", job_id, "--traceback"]
    assert SHOWN[-1] in run_command(*advice.split()[1:], url=own_url).stdout


def test_a_narrow_terminal_shows_the_codes_of_the_timeline_whole(own_url: str) -> None:
    shown = on_a_terminal("job", "events", a_failed_job(own_url), url=own_url)
    assert "exception.KeyError" in shown
    assert "…" not in shown
