"""What two callers meet on: a job or a run in some state, what can be done to it, and how it looks afterwards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from runledger import JobRequest, Scope, StepRequest, WorkflowDagBuilder
from runledger.core.failures import Failure
from runledger.core.jobs import ClaimedJob
from runledger.core.schedules import ScheduleRequest
from runledger.core.states import Outcome
from runledger.core.workflows import Failed, Succeeded
from runledger.postgres.claim import claim_jobs
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.definitions import set_definition_enabled, set_definition_paused
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.firing import fire_due_schedules, trigger_job_schedule
from runledger.postgres.leases import renew_leases, save_progress
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.recovery import WorkerDeath, reap_lapsed_leases, settle_dead_worker
from runledger.postgres.schedules import delete_job_schedule, set_job_schedule_active, upsert_job_schedule
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.postgres.workflow_runs import enqueue_workflow_run
from runledger.testing.factories import (
    TEST_WORKER,
    a_definition,
    a_job,
    a_leased_job,
    age_lease,
    claim_one,
    dead_lettered,
    failed,
    released,
    succeeded,
)

Connection = psycopg.Connection[Any]
Subject = Any
Deed = Callable[[PsycopgConnection, Subject], Any]
TYPE = "test.job"
ANY = Scope.any()
LATER = datetime(2100, 1, 1, tzinfo=UTC)
EARLIER = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Scene:
    """What two callers meet on, and what either may do to it. A deed that takes what nobody else has locked says
    ``nothing`` when that was nothing."""

    arrange: Callable[[Connection], Subject]
    deeds: Mapping[str, Deed]


def settled(ledger: PsycopgConnection, end: Any) -> str:
    return "settled" if settle_jobs(ledger, [end]) else "lost"


def finish_with_own_row(ledger: PsycopgConnection, job: ClaimedJob) -> str:
    """What ``context.finish`` does: the caller's row and the end of the attempt in one transaction."""
    ledger.wait_for_turn()  # type: ignore[attr-defined]  # the stepped connection
    ledger.driver.execute(
        "INSERT INTO chaos_effects (job_id, lease_token, worker_id) VALUES (%s, %s, %s)",
        (job.job_id, job.lease_token, TEST_WORKER),
    )
    if not settle_jobs(ledger, [succeeded(job)]):
        ledger.driver.rollback()
        return "lost"
    return "settled"


def claim(ledger: PsycopgConnection, _: Subject) -> str:
    found = claim_jobs(ledger, worker_id="other", job_types=[TYPE], limit=5, lease_ttl_seconds=60)
    return "claimed" if found else "nothing"


def renew(ledger: PsycopgConnection, _: Subject) -> str:
    return "renewed" if renew_leases(ledger, worker_ids=[TEST_WORKER], lease_ttl_seconds=60) else "nothing"


def reap(ledger: PsycopgConnection, _: Subject) -> str:
    return "reaped" if len(reap_lapsed_leases(ledger)) else "nothing"


def bury(ledger: PsycopgConnection, job: ClaimedJob) -> str:
    failure = Failure(Outcome.PANICKED, "job.worker_crash", "it died", None, None, 9)
    recovered = settle_dead_worker(ledger, WorkerDeath(TEST_WORKER, failure, job.lease_token))
    return "buried" if len(recovered) else "nothing"


def promote(ledger: PsycopgConnection, _: Subject) -> str:
    return "promoted" if promote_due_jobs(ledger).promoted else "nothing"


def identity(subject: Subject) -> Any:
    return subject.job_id


LEASED: dict[str, Deed] = {
    "succeed": lambda ledger, job: settled(ledger, succeeded(job)),
    "retry": lambda ledger, job: settled(ledger, failed(job)),
    "dead-letter": lambda ledger, job: settled(ledger, dead_lettered(job)),
    "give back": lambda ledger, job: settled(ledger, released(job)),
    "finish with own row": finish_with_own_row,
    "renew": renew,
    "progress": lambda ledger, job: save_progress(ledger, job.job_id, job.lease_token, done=1, checkpoint='{"a": 1}'),
    "bury the worker": bury,
    "reap": reap,
    "cancel": lambda ledger, job: cancel_job(ledger, identity(job), scope=ANY),
}
PENDING: dict[str, Deed] = {
    "claim": claim,
    "cancel": lambda ledger, job: cancel_job(ledger, identity(job), scope=ANY),
    "put off": lambda ledger, job: reschedule_job(ledger, identity(job), next_run_at=LATER, scope=ANY),
    "bring forward": lambda ledger, job: reschedule_job(ledger, identity(job), next_run_at=EARLIER, scope=ANY),
    "promote": promote,
    "requeue": lambda ledger, job: requeue_job(ledger, identity(job), scope=ANY),
    "pause": lambda ledger, _: set_definition_paused(ledger, TYPE, is_paused=True),
    "disable": lambda ledger, _: set_definition_enabled(ledger, TYPE, is_enabled=False),
}
LAPSED = {
    name: LEASED[name]
    for name in ("succeed", "retry", "finish with own row", "renew", "bury the worker", "reap", "cancel")
}
DUE = {name: PENDING[name] for name in ("claim", "cancel", "put off", "promote")}
DEAD = {name: PENDING[name] for name in ("requeue", "cancel", "claim")}
KEYED: dict[str, Deed] = {
    "enqueue": lambda ledger, _: enqueue_keyed(ledger, 1),
    "enqueue another": lambda ledger, _: enqueue_keyed(ledger, 2),
    "disable": PENDING["disable"],
    "claim": claim,
}
ACTIVE: dict[str, Deed] = {
    "ask": lambda ledger, _: enqueue_active(ledger),
    "ask too": lambda ledger, _: enqueue_active(ledger),
    "claim": claim,
    "cancel": PENDING["cancel"],
    "bring forward": PENDING["bring forward"],
    "requeue": PENDING["requeue"],
}
ENDED = {name: ACTIVE[name] for name in ("ask", "ask too", "requeue")}
ACTIVE_LEASED: dict[str, Deed] = {
    "ask": lambda ledger, _: enqueue_active(ledger),
    "succeed": LEASED["succeed"],
    "retry": LEASED["retry"],
    "cancel": LEASED["cancel"],
}
RUN: dict[str, Deed] = {
    "step succeeds": lambda ledger, run: settled(ledger, succeeded(run.step)),
    "step fails": lambda ledger, run: settled(ledger, dead_lettered(run.step)),
    "gate yes": lambda ledger, run: complete(ledger, run, Succeeded({"a": 1})),
    "gate no": lambda ledger, run: complete(ledger, run, Failed("no", "no")),
    "append": lambda ledger, run: append(ledger, run, "first"),
    "append another": lambda ledger, run: append(ledger, run, "second"),
    "cancel the run": lambda ledger, run: cancel_workflow_run(ledger, run_id=run.run_id),
    "cancel the step": lambda ledger, run: cancel_job(ledger, run.step.job_id, scope=ANY),
    "claim": claim,
    "reap": reap,
}
SCHEDULED: dict[str, Deed] = {
    "fire": lambda ledger, _: len(fire_due_schedules(ledger).fired) or "nothing",
    "pause": lambda ledger, name: set_job_schedule_active(ledger, name, is_active=False),
    "delete": lambda ledger, name: delete_job_schedule(ledger, name),
    "trigger": lambda ledger, name: trigger_job_schedule(ledger, name).is_new,
    "change": lambda ledger, name: upsert_job_schedule(ledger, a_schedule(name, "0 4 * * *")).name,
    "disable": PENDING["disable"],
}


@dataclass(frozen=True)
class Run:
    run_id: str
    step: ClaimedJob


def enqueue_keyed(ledger: PsycopgConnection, number: int) -> bool:
    return enqueue_job(ledger, JobRequest(TYPE, {"number": number}, idempotency_key="key")).is_new


def enqueue_active(ledger: PsycopgConnection) -> bool:
    return enqueue_job(ledger, JobRequest(TYPE, active_key="key")).is_new


def complete(ledger: PsycopgConnection, run: Run, outcome: Succeeded | Failed) -> None:
    complete_external_workflow_step(ledger, run_id=run.run_id, step_key="gate", outcome=outcome)


def append(ledger: PsycopgConnection, run: Run, key: str) -> str:
    steps = [StepRequest(f"{key}-step", TYPE)]
    done = append_workflow_steps(ledger, run_id=run.run_id, mutation_key=key, window_step_key="gate", steps=steps)
    return done.outcome.value


def a_schedule(name: str, cron: str) -> ScheduleRequest:
    return ScheduleRequest(name, cron=cron, job_type=TYPE)


def a_lapsed_lease(connection: Connection) -> ClaimedJob:
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=3_600)
    connection.execute("UPDATE runledger.job_queue SET created_at = created_at - interval '2 hours'")
    return job


def a_due_retry(connection: Connection) -> Subject:
    job = a_job(connection, delay=60)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = now() - interval '1 second'")
    return job


def a_dead_job(connection: Connection) -> Subject:
    job = a_leased_job(connection)
    settle_jobs(connection, [dead_lettered(job)])
    return job


def a_holder(connection: Connection) -> Subject:
    return a_job(connection, active_key="key")


def a_leased_holder(connection: Connection) -> ClaimedJob:
    a_holder(connection)
    return claim_one(connection)


def an_ended_holder(connection: Connection) -> Subject:
    job = a_holder(connection)
    cancel_job(connection, job.job_id, scope=ANY)
    return job


def a_run(connection: Connection) -> Run:
    builder = WorkflowDagBuilder("test").job("a", TYPE).external("gate").job("b", TYPE)
    builder.after_success("b", ["a", "gate"]).job("c", TYPE).after_terminal("c", ["a", "gate"])
    with connection.transaction():
        run_id = str(enqueue_workflow_run(connection, builder.build()).run_id)
    return Run(run_id, claim_one(connection))


def a_due_schedule(connection: Connection) -> str:
    upsert_job_schedule(connection, a_schedule("nightly", "0 3 * * *"))
    connection.execute(
        "UPDATE runledger.job_schedules SET next_slot_at = date_trunc('day', now()) - interval '1 day',"
        " next_fire_at = date_trunc('day', now()) - interval '1 day'"
    )
    return "nightly"


SCENES = {
    "a leased job": Scene(a_leased_job, LEASED),
    "a lapsed lease": Scene(a_lapsed_lease, LAPSED),
    "a ready job": Scene(a_job, PENDING),
    "a job that is due": Scene(a_due_retry, DUE),
    "a dead job": Scene(a_dead_job, DEAD),
    "a free key": Scene(a_definition, KEYED),
    "an active key": Scene(a_holder, ACTIVE),
    "an active key of a running job": Scene(a_leased_holder, ACTIVE_LEASED),
    "an active key of an ended job": Scene(an_ended_holder, ENDED),
    "a run": Scene(a_run, RUN),
    "a due schedule": Scene(a_due_schedule, SCHEDULED),
}
