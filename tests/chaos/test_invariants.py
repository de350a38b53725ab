"""The checker can fail: each rule is broken once by hand, on jobs, a workflow and a schedule that are sound."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from chaos.app import CREATE_EFFECTS, EFFECT
from chaos.invariants import RULES, Connection, violations
from chaos.testimony import begun_without_attempt
from postgres.workflow_graphs import TYPE, claim_steps
from psycopg import sql

from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import Succeeded
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import a_definition, a_job, claim_one, dead_lettered, failed, make_due, succeeded
from runledger.testing.factories import released as given_back

TIMELINES = "a timeline is out of order"
PLANTED = {
    "an acknowledged job is lost": "DELETE FROM runledger.job_queue WHERE id = {effect}",
    "a job has no end": "UPDATE runledger.job_queue SET final_status = NULL, finished_at = NULL WHERE id = {plain}",
    "no run of a job succeeded twice": """
        INSERT INTO runledger.job_attempts
            (job_id, lease_token, run_number, attempt, leased_at, finished_at, outcome, worker_id)
        SELECT job_id, lease_token + 1000, run_number, attempt + 1, leased_at, finished_at, outcome, worker_id
        FROM runledger.job_attempts WHERE job_id = {plain} AND outcome = 'SUCCEEDED'
    """,
    "a job that succeeded has an attempt that did": """
        DELETE FROM runledger.job_attempts WHERE job_id = {plain} AND outcome = 'SUCCEEDED'
    """,
    "a job with an attempt of its last run that succeeded has succeeded": """
        UPDATE runledger.job_queue SET final_status = 'CANCELED' WHERE id = {plain}
    """,
    "a job that succeeded has not exactly one effect": "INSERT INTO chaos_effects SELECT * FROM chaos_effects",
    "an effect does not belong to an attempt that succeeded": """
        UPDATE chaos_effects SET lease_token = lease_token + 1
    """,
    "counted attempts of a run are 1, 2, 3 in the order of their lease tokens": """
        DELETE FROM runledger.job_attempts WHERE job_id = {plain} AND attempt = 1
    """,
    "the record of a finished job counts the attempts that there were": """
        UPDATE runledger.job_queue SET attempt = attempt + 1 WHERE id = {plain}
    """,
    "a lease is left": """
        INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority,
            run_number, attempt, job_type, worker_id)
        SELECT id, 1, now(), now(), now(), 0, 1, 1, job_type, 'nobody' FROM runledger.job_queue WHERE id = {plain}
    """,
    "every job is ready, scheduled, leased or finished, and only one of them": """
        INSERT INTO runledger.job_ready (job_id, next_run_at, priority, run_number, attempt, job_type)
        SELECT id, now(), 0, 1, 1, job_type FROM runledger.job_queue WHERE id = {plain}
    """,
    TIMELINES: """
        UPDATE runledger.job_attempts SET leased_at = now() - interval '1 hour', finished_at = now() - interval '1 hour'
        WHERE job_id = {plain} AND outcome = 'SUCCEEDED'
    """,
    "an attempt begins after the one before it has ended": """
        UPDATE runledger.job_attempts SET leased_at = leased_at - interval '1 hour'
        WHERE job_id = {plain} AND outcome = 'SUCCEEDED'
    """,
    "a lease began before the attempt before it had ended": """
        INSERT INTO runledger.job_leases (job_id, lease_token, leased_at, lease_expires_at, next_run_at, priority,
            run_number, attempt, job_type, worker_id)
        SELECT id, 1, now() - interval '1 hour', now(), now(), 0, 1, 1, job_type, 'nobody'
        FROM runledger.job_queue WHERE id = {plain}
    """,
    "more jobs of a type ran at once than may": """
        UPDATE runledger.job_definitions SET max_running = 1;
        UPDATE runledger.job_attempts SET leased_at = now() - interval '1 hour' WHERE job_id = {plain}
    """,
    "more jobs of a type started in a span than may": """
        UPDATE runledger.job_definitions SET rate_starts = 1, rate_seconds = 3600;
        UPDATE runledger.job_attempts SET started_at = leased_at WHERE job_id = {plain}
    """,
    "a token was given twice": """
        UPDATE runledger.job_attempts SET lease_token = (SELECT max(lease_token) FROM runledger.job_attempts)
        WHERE job_id = {effect}
    """,
    "no job has more attempts than it may have": "UPDATE runledger.job_queue SET attempt = 1000 WHERE id = {plain}",
    "a dead letter is missing": "DELETE FROM runledger.job_dead_letters WHERE job_id = {dead}",
    "a dead letter belongs to a job that did not end so": """
        UPDATE runledger.job_dead_letters SET run_number = run_number + 1 WHERE job_id = {dead}
    """,
    "a job was given up with attempts left and without a reason": """
        UPDATE runledger.job_attempts SET outcome = 'RETRYABLE' WHERE job_id = {dead}
    """,
    "two jobs have one key": """
        DROP INDEX runledger.uq_job_queue_type_idempotency_global;
        UPDATE runledger.job_queue SET job_type = 'same', idempotency_key = 'same', enqueue_request = '[]'
    """,
    "a slot fired twice, or before its time": """
        UPDATE runledger.job_queue SET schedule_id = id, scheduled_for = now() + interval '1 hour' WHERE id = {plain}
    """,
    "a run has no end": "UPDATE runledger.workflow_runs SET finished_at = NULL, status = 'RUNNING' WHERE id = {run}",
    "a job that can succeed was given up": """
        UPDATE runledger.job_queue SET final_status = 'DEAD_LETTERED' WHERE id = {plain}
    """,
    "a job that must fail has succeeded": """
        UPDATE runledger.job_queue SET job_type = 'chaos.terminal' WHERE id = {plain}
    """,
    "a slot was left out by a schedule that fires all": """
        INSERT INTO runledger.job_schedules (id, name, job_type, cron_expr, missed, next_slot_at, next_fire_at)
        SELECT id, 'every', job_type, '*/5 * * * * *', 'ALL', now(), now()
        FROM runledger.job_queue WHERE id = {plain};
        UPDATE runledger.job_queue SET schedule_id = {plain}, scheduled_for = CASE id
            WHEN {plain} THEN now() - interval '20 seconds' ELSE now() - interval '10 seconds' END
        WHERE id IN ({plain}, {effect})
    """,
    "the counts of a step equal its edges": """
        UPDATE runledger.workflow_steps SET dependency_count_pending = 1 WHERE step_key = 'b'
    """,
    "a run has ended if and only if all its steps have": """
        UPDATE runledger.workflow_steps SET status = 'ENQUEUED' WHERE step_key = 'b'
    """,
    "a step is released only when its prerequisites allow it": """
        UPDATE runledger.workflow_steps SET released_at = now() - interval '1 hour' WHERE step_key = 'b'
    """,
    "no step is blocked while nothing is in its way": """
        UPDATE runledger.workflow_steps SET status = 'BLOCKED' WHERE step_key = 'b'
    """,
    "the status of a step is that of its job": """
        UPDATE runledger.workflow_steps SET status = 'FAILED' WHERE step_key = 'b'
    """,
    "a step has one job of its own once it is released, and a gate has none": """
        UPDATE runledger.workflow_steps SET job_id = NULL WHERE step_key = 'b'
    """,
    "no job of a cancelled run waits or runs": """
        UPDATE runledger.workflow_runs SET status = 'CANCELED';
        UPDATE runledger.job_queue SET final_status = NULL, finished_at = NULL WHERE workflow_run_id = {run}
    """,
    "an edge joins two steps of its run": """
        INSERT INTO runledger.workflow_runs
        SELECT (jsonb_populate_record(r, jsonb_build_object('id', gen_random_uuid()))).* FROM runledger.workflow_runs r;
        UPDATE runledger.workflow_step_dependencies
        SET workflow_run_id = (SELECT id FROM runledger.workflow_runs WHERE id <> {run})
    """,
    "the counts of a run equal its steps": "UPDATE runledger.workflow_runs SET step_count = step_count + 1",
}
"""A rule of the checker, and a change that breaks it."""


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """Everything in one transaction that never commits."""
    with psycopg.connect(database_url) as made:
        made.execute(CREATE_EFFECTS)
        yield made
        made.rollback()


def _sound(connection: Connection) -> dict[str, str]:
    """One job with a failure and a release behind it, one with an effect, one that was given up, and a run of three
    steps that has ended."""
    plain, effect, dead = a_job(connection), a_job(connection, EFFECT), a_job(connection, "chaos.terminal")
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
    settle_jobs(connection, [dead_lettered(claim_one(connection, "chaos.terminal"))])
    names = {"plain": plain.job_id, "effect": effect.job_id, "dead": dead.job_id, "run": _ended_run(connection)}
    return {name: str(identity) for name, identity in names.items()}


def _ended_run(connection: Connection) -> Any:
    a_definition(connection, TYPE)
    builder = WorkflowDagBuilder("test").job("a", TYPE).external("gate").after_success("gate", ["a"])
    run_id = enqueue_workflow_run(connection, builder.job("b", TYPE).after_success("b", ["gate"]).build()).run_id
    settle_jobs(connection, [succeeded(job) for job in claim_steps(connection).values()])
    complete_external_workflow_step(connection, run_id=run_id, step_key="gate", outcome=Succeeded())
    settle_jobs(connection, [succeeded(job) for job in claim_steps(connection).values()])
    return run_id


def _acknowledged(jobs: dict[str, str]) -> list[str]:
    return [jobs["plain"], jobs["effect"]]


def test_a_sound_ledger_breaks_no_rule(connection: Connection) -> None:
    jobs = _sound(connection)

    assert violations(connection, _acknowledged(jobs)) == []


@pytest.mark.parametrize("sentence", [*RULES, TIMELINES])
def test_each_rule_notices_when_it_is_broken(connection: Connection, sentence: str) -> None:
    jobs = _sound(connection)

    connection.execute("SET LOCAL session_replication_role = replica")
    for name in ("job_queue", "workflow_runs", "workflow_steps", "job_leases"):
        for (constraint,) in connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype = 'c'", (f"runledger.{name}",)
        ).fetchall():
            connection.execute(f"ALTER TABLE runledger.{name} DROP CONSTRAINT {constraint}")
    names = {name: sql.Literal(identity) for name, identity in jobs.items()}
    changed = connection.execute(sql.SQL(PLANTED[sentence]).format(**names))

    assert changed.rowcount != 0
    found = {violation.partition(": ")[0] for violation in violations(connection, _acknowledged(jobs))}
    assert sentence in found


def test_a_handler_that_ran_under_a_lease_which_is_lost_is_noticed(connection: Connection, tmp_path: Path) -> None:
    jobs = _sound(connection)
    [(job_id, token)] = connection.execute(
        "SELECT job_id, lease_token FROM runledger.job_attempts WHERE job_id = %s", (jobs["effect"],)
    ).fetchall()
    begun = tmp_path / "begun.txt"
    begun.write_text(f"{job_id} {token}\n")
    assert begun_without_attempt(connection, begun) == []

    begun.write_text(f"{job_id} {token}\n{jobs['plain']} {token}\n")

    found = [one.partition(":")[0] for one in begun_without_attempt(connection, begun)]
    assert found == ["a handler ran under a lease that is not there", "two jobs ran under one token"]
