"""Secrets that must not leak: the password of the database and what is in payloads never stand in a log, in an error,
in the list of processes or in what a command prints."""

import secrets
from pathlib import Path

import psycopg
import pytest
from acceptance.command_line import run_program
from runtime.apps.hostile_jobs import catalog
from runtime.hosts import Desk, Host

from runledger import Ledger
from runledger.database import migrate
from runledger.testing import databases

END_OUR_SESSIONS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE application_name LIKE 'runledger:%' AND datname = current_database()"
)


@pytest.mark.process
def test_neither_password_nor_payload_is_ever_shown(server_url: str, database_template: str, tmp_path: Path) -> None:
    password, secret = f"pw{secrets.token_hex(12)}", f"pl{secrets.token_hex(12)}"
    with databases.ephemeral_database(server_url, database_template) as plain_url:
        url = psycopg.conninfo.make_conninfo(plain_url, password=password)
        desk = Desk(plain_url, tmp_path)
        catalog.sync_definitions(desk.connection)
        good = desk.one("work", token=secret)
        bad = desk.one("work", token=secret, max_attempts=1)
        desk.connection.execute(
            "UPDATE runledger.job_queue SET payload = jsonb_build_object('token', %s::text, 'deep', %s::jsonb)"
            " WHERE id = %s",
            (secret, "[" * 100 + "]" * 100, bad),
        )
        host = Host(url, tmp_path, {}, {})
        try:
            shown = [_command_lines(host)]
            desk.wait_for_end(good)
            desk.wait_for_end(bad)
            shown.append(_command_lines(host))
            desk.connection.execute(END_OUR_SESSIONS)
            host.wait_for_event("tick.failed")
            assert host.stop() == 0
        finally:
            host.end()
        shown += [host.log, *_commands(url, good, secret)]
        desk.close()

    assert "job.dead_lettered" in shown[2], "the log says nothing of what it must not show"
    assert "Traceback" in shown[2], "nor in which line"
    assert [password for text in shown if password in text] == []
    assert [text for text in shown if secret in text] == []


def _command_lines(host: Host) -> str:
    """What ``ps`` shows of every process of the host."""
    found = ""
    for pid in host.living():
        try:
            found += Path(f"/proc/{pid}/cmdline").read_text() + Path(f"/proc/{pid}/comm").read_text()
        except OSError:
            continue
    return found


def _commands(url: str, job_id: str, secret: str) -> list[str]:
    """What commands say that fail, or that are about jobs and not about their payloads."""
    environment = {"RUNLEDGER_DATABASE_URL": url}
    wrong = psycopg.conninfo.make_conninfo(url, dbname="no_such_database")
    calls = [
        run_program("job", "list", "--json", environment={"RUNLEDGER_DATABASE_URL": wrong}),
        run_program("migrate", "-v", environment={"RUNLEDGER_DATABASE_URL": wrong}),
        run_program("job", "list", environment=environment),
        run_program("enqueue", "work", '{"token": "' + secret + '", "x": NaN}', "-v", environment=environment),
        run_program("enqueue", "nobody", '{"token": "' + secret + '"}', "--json", environment=environment),
        run_program("job", "requeue", job_id, "-v", environment=environment),
    ]
    return [(call.stdout + call.stderr).decode() for call in calls]


def test_a_refused_migration_and_a_closed_pool_do_not_show_the_password(server_url: str) -> None:
    password = f"pw{secrets.token_hex(12)}"
    url = psycopg.conninfo.make_conninfo(server_url, dbname="no_such_database", password=password)
    for act in (lambda: migrate(url), lambda: Ledger(url).enqueue("any")):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it must not say it
            act()
        error: BaseException | None = caught.value
        while error is not None:
            assert password not in str(error) + repr(error) + str(getattr(error, "internal_message", ""))
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
