"""A primary that is lost for good: the standby is promoted, and hosts that were told both names go on by themselves."""

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from acceptance.command_line import run_command
from runtime.crashing import CrashingServer
from runtime.follower import Follower, url_of_both
from runtime.hosts import Desk, Host, until

from runledger.core.errors import DatabaseUnavailable
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_job

pytestmark = pytest.mark.process
QUICK_REAPER = {"JOBS_REAPER_INTERVAL_SECONDS": 1, "JOBS_REAPER_RETRY_DELAY_MS": 1_000}
JOBS = 300
AGE_LEASES_BUT_ONE = """
    UPDATE runledger.job_leases SET leased_at = leased_at - interval '2 minutes',
           renewed_at = renewed_at - interval '2 minutes', lease_expires_at = lease_expires_at - interval '2 minutes'
    WHERE job_id <> %s
"""


def test_jobs_go_on_at_the_promoted_standby_and_a_running_one_is_not_repeated(
    primary: CrashingServer, standby: Follower, tmp_path: Path, start_host: Callable[..., Host]
) -> None:
    url = url_of_both(primary, standby)
    desk = Desk(url, tmp_path)
    gate = desk.gate()
    running = desk.one("gated", gate=str(gate), priority=5)
    host = start_host(url=url, JOBS_MAX_GLOBAL_CONCURRENCY=2, **QUICK_REAPER).ready(2)
    desk.wait_for_effect(running)
    jobs = desk.enqueue("work", count=JOBS)
    until(lambda: _successes(desk) > JOBS // 10, what="a tenth of the work")
    desk.close()

    primary.crash()
    host.wait_for_event("tick.failed")
    standby.promote()
    desk = Desk(url, tmp_path)
    before = _successes(desk)
    until(lambda: _successes(desk) > before, what="a success at the new primary")
    gate.touch()
    until(lambda: desk.scalar("SELECT count(*) FROM runledger.job_ready") == 0, what="the claim of the rest")
    desk.wait_for_end(running)
    desk.connection.execute(AGE_LEASES_BUT_ONE, (running,))  # a claim whose answer was lost is nobody's until it lapses
    desk.wait_until_all_ended()

    assert desk.successes_per_job() == dict.fromkeys([running, *jobs], 1)
    assert desk.outcomes(running) == ["SUCCEEDED"]
    assert host.stop() == 0
    assert desk.leases() == 0
    desk.close()


def test_a_standby_answers_readers_and_refuses_an_enqueue_as_one_that_cannot_be_used_now(standby: Follower) -> None:
    with psycopg.connect(standby.url) as connection, pytest.raises(DatabaseUnavailable, match="read-only"):
        enqueue_job(connection, JobRequest("work"))
    for command in (["stats"], ["job", "list"], ["dead", "list"], ["workflow", "list"], ["workers"]):
        assert run_command(*command, url=standby.url).exit_code == 0
    assert run_command("enqueue", "work", url=standby.url).exit_code == 69


def _successes(desk: Desk) -> int:
    return int(desk.scalar("SELECT count(*) FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED'"))
