"""A small soak in every run of the tests, and the proof that its checker can fail: each rule is broken once by hand,
and once a host is built without one of the checks that everything rests on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from chaos.app import CREATE_EFFECTS, EFFECT, GATED_EFFECT
from chaos.app import catalog as chaos_catalog
from chaos.hosts import ENVIRONMENT, SCRIPT
from chaos.invariants import RULES, Connection, violations
from chaos.kill_soak import soak
from chaos.nemesis import Kind, Role, plan
from runtime.hosts import Desk, Host, until

from runledger.postgres.definitions import sync_definitions
from runledger.postgres.settle import settle_jobs
from runledger.testing import databases
from runledger.testing.factories import a_job, claim_one, failed, make_due, succeeded
from runledger.testing.factories import released as given_back

SMOKE_SEED = 2412
"""Its twelve kills meet every role, with a worker stopped beyond its lease at the beginning."""


@pytest.fixture
def own_database(server_url: str, database_template: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url, database_template) as url:
        yield url


# -- the soak ------------------------------------------------------------------------------------------------


@pytest.mark.process
def test_nothing_is_lost_or_done_twice_whoever_is_killed(own_database: str, tmp_path: Path) -> None:
    report = soak(own_database, tmp_path, seed=SMOKE_SEED, kills=12, mean_pause_seconds=0.8)

    print(f"\n{report.line()}")
    assert report.violations == []
    assert {one.role for one in report.actions if one.kind is Kind.KILL} == set(Role)
    assert report.reruns > 0, "nobody was killed at work; the soak proves nothing"
    assert report.succeeded == report.jobs > 500


def test_a_seed_says_what_the_nemesis_does() -> None:
    first = plan(7, kills=200, mean_pause_seconds=2.5)

    assert plan(7, kills=200, mean_pause_seconds=2.5) == first
    assert plan(8, kills=200, mean_pause_seconds=2.5) != first
    assert sum(one.kind is Kind.KILL for one in first) == 200
    assert {(one.kind, one.role) for one in first} >= {(Kind.KILL, role) for role in Role}


# -- the checker can fail ------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.parametrize(
    ("mutant", "broken"),
    [(None, []), ("settle-without-token", ["an effect does not belong to an attempt that succeeded"])],
)
def test_a_late_worker_is_told_from_the_holder_of_the_lease_only_by_its_token(
    own_database: str, tmp_path: Path, mutant: str | None, broken: list[str]
) -> None:
    desk = Desk(own_database, tmp_path)
    desk.connection.execute(CREATE_EFFECTS)
    sync_definitions(desk.connection, chaos_catalog.definitions)
    gate = desk.gate()
    job_id = desk.one(GATED_EFFECT, gate=str(gate))
    environment = ENVIRONMENT | ({"CHAOS_MUTANT": mutant} if mutant else {})
    host = Host(own_database, tmp_path, environment, {"app": "chaos.app:catalog", "script": str(SCRIPT)})
    try:
        late = _pid_in(Path(f"{gate}.1.begun"))
        os.kill(late, signal.SIGSTOP)
        desk.age_leases(120)
        desk.connection.execute("UPDATE runledger.job_queue SET created_at = created_at - interval '1 hour'")
        desk.wait_for_attempt(job_id, "LEASE_EXPIRED")
        _pid_in(Path(f"{gate}.2.begun"))
        host.wait_for_event("job.interrupted")
        os.kill(late, signal.SIGCONT)
        Path(f"{gate}.1").touch()
        until(lambda: _is_told_off(host) or _effects(desk) > 0, what="the end of the late worker")
        Path(f"{gate}.2").touch()
        desk.wait_for_end(job_id)
        until(lambda: _effects(desk) == 1, what="the effect")
        assert host.stop() == 0

        found = violations(desk.connection, [job_id])

        assert [violation.partition(":")[0] for violation in found] == broken
    finally:
        host.end()
        desk.close()


def _pid_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text(), what=f"the beginning of {path.name}"))


def _is_told_off(host: Host) -> bool:
    return bool(host.events("job.attempt_void") or host.events("job.lease_lost"))


def _effects(desk: Desk) -> int:
    return int(desk.scalar("SELECT count(*) FROM chaos_effects"))


PLANTED = {
    "an acknowledged job is lost": "DELETE FROM runledger.job_queue WHERE id = %(effect)s",
    "a job has no end": "UPDATE runledger.job_queue SET final_status = NULL, finished_at = NULL WHERE id = %(plain)s",
    "a run succeeded twice": """
        INSERT INTO runledger.job_attempts
            (job_id, lease_token, run_number, attempt, leased_at, finished_at, outcome, worker_id)
        SELECT job_id, lease_token + 1000, run_number, attempt + 1, leased_at, finished_at, outcome, worker_id
        FROM runledger.job_attempts WHERE job_id = %(plain)s AND outcome = 'SUCCEEDED'
    """,
    "a job is called succeeded and no attempt of its last run was": """
        DELETE FROM runledger.job_attempts WHERE job_id = %(plain)s AND outcome = 'SUCCEEDED'
    """,
    "an attempt succeeded and its job is called otherwise": """
        UPDATE runledger.job_queue SET final_status = 'CANCELED' WHERE id = %(plain)s
    """,
    "a job that succeeded has not exactly one effect": "INSERT INTO chaos_effects SELECT * FROM chaos_effects",
    "an effect does not belong to an attempt that succeeded": """
        UPDATE chaos_effects SET lease_token = lease_token + 1
    """,
    "counted attempts have a gap or a double": """
        DELETE FROM runledger.job_attempts WHERE job_id = %(plain)s AND attempt = 1
    """,
    "the record counts other attempts than there were": """
        UPDATE runledger.job_queue SET attempt = attempt + 1 WHERE id = %(plain)s
    """,
    "a lease is left": """
        INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority,
            run_number, attempt, job_type, worker_id)
        SELECT id, 1, now(), now(), now(), 0, 1, 1, job_type, 'nobody' FROM runledger.job_queue WHERE id = %(plain)s
    """,
    "a job is in more than one place, or in none": """
        INSERT INTO runledger.job_ready (job_id, next_run_at, priority, run_number, attempt, job_type)
        SELECT id, now(), 0, 1, 1, job_type FROM runledger.job_queue WHERE id = %(plain)s
    """,
    "a timeline is out of order": """
        UPDATE runledger.job_attempts SET leased_at = now() - interval '1 hour', finished_at = now() - interval '1 hour'
        WHERE job_id = %(plain)s AND outcome = 'SUCCEEDED'
    """,
}
"""A sentence of the checker, and a change that makes it true."""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Everything in one transaction that never commits."""
    with psycopg.connect(database_url) as made:
        made.execute(CREATE_EFFECTS)
        yield made
        made.rollback()


def _two_finished_jobs(connection: Connection) -> dict[str, str]:
    """One with a failure and a release behind it, one with an effect."""
    plain, effect = a_job(connection), a_job(connection, EFFECT)
    ends = (given_back, failed, succeeded)
    for end in ends:
        settle_jobs(connection, [end(claim_one(connection))])
        if end is failed:
            make_due(connection, plain.job_id)
    claimed = claim_one(connection, EFFECT, worker_id="worker-2")
    connection.execute(
        "INSERT INTO chaos_effects (job_id, lease_token, worker_id) VALUES (%s, %s, 'worker-2')",
        (claimed.job_id, claimed.lease_token),
    )
    settle_jobs(connection, [succeeded(claimed)])
    return {"plain": str(plain.job_id), "effect": str(effect.job_id)}


def test_a_sound_ledger_breaks_no_rule(connection: Connection) -> None:
    jobs = _two_finished_jobs(connection)

    assert violations(connection, jobs.values()) == []


@pytest.mark.parametrize("sentence", [*RULES, "a timeline is out of order"])
def test_each_rule_notices_when_it_is_broken(connection: Connection, sentence: str) -> None:
    jobs = _two_finished_jobs(connection)

    connection.execute("SET LOCAL session_replication_role = replica")
    changed = connection.execute(PLANTED[sentence], jobs)

    assert changed.rowcount > 0
    assert sentence in {violation.partition(":")[0] for violation in violations(connection, jobs.values())}
