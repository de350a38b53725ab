"""The queue against a model in plain Python: any order of operations, any lease ever handed out.

After each step the answers, every job as people read it, its whole timeline and the invariants of the tables are
compared. RUNLEDGER_MACHINE_EXAMPLES raises the number of histories (default 70 of at most 40 steps).
"""

import json
import os
from typing import Any

import psycopg
from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from postgres.conftest import EMPTY_ALL
from postgres.queue_model import CRASH_BUDGET, ModelJob, ModelLease

from runledger.core import errors
from runledger.core.definitions import RetryPolicy
from runledger.core.failures import Failure
from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.requests import JobRequest
from runledger.core.results import LeaseCheck
from runledger.core.states import JobStatus, Outcome
from runledger.postgres.cancellation import quiesce_canceled
from runledger.postgres.claim import claim_jobs
from runledger.postgres.definitions import set_definition_enabled, set_definition_paused
from runledger.postgres.enqueue import enqueue_job
from runledger.postgres.leases import renew_leases, save_progress
from runledger.postgres.operations import cancel_job, requeue_job, reschedule_job
from runledger.postgres.promote import promote_due_jobs
from runledger.postgres.recovery import WorkerDeath, reap_lapsed_leases, settle_dead_worker
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import (
    a_definition,
    continued,
    dead_lettered,
    expired,
    failed,
    released,
    snoozed,
    succeeded,
)

ANY = Scope.any()
TYPES = ("alpha", "beta")
WORKERS = ("w1", "w2")
TTL = 3600.0
CRASH = Failure(Outcome.PANICKED, "job.worker_crash", "died", None, None, exit_signal=9)

ENDS: dict[str, tuple[Any, Any]] = {
    "succeeded": (lambda lease: succeeded(lease, {"ok": True}), ModelJob.succeed),
    "failed, again at once": (
        lambda lease: failed(lease, retry_seconds=0),
        lambda job: job.retry("test.failed", "ready"),
    ),
    "failed, again later": (lambda lease: failed(lease), lambda job: job.retry("test.failed", "scheduled")),
    "timed out": (
        lambda lease: failed(lease, outcome=Outcome.TIMEOUT, code="job.timeout_exceeded"),
        lambda job: job.retry("job.timeout_exceeded", "scheduled"),
    ),
    "dead-lettered": (dead_lettered, lambda job: job.dead_letter("test.failed", "FAILURE_KIND_NON_RETRYABLE")),
    "snoozed": (snoozed, lambda job: job.snooze("scheduled")),
    "snoozed for nothing": (lambda lease: snoozed(lease, seconds=0), lambda job: job.snooze("ready")),
    "continued at once": (continued, lambda job: job.continue_("ready")),
    "continued later": (lambda lease: continued(lease, seconds=60), lambda job: job.continue_("scheduled")),
    "released": (released, ModelJob.release),
    "expired": (expired, ModelJob.expire),
}
PROJECTION = """
SELECT j.id::text, j.job_type, j.status::text, j.stage, j.priority, j.run_number, j.attempt, j.lease_token, j.worker_id,
       j.progress_done, j.progress_total, j.checkpoint, j.status_reason, j.last_error_code, j.next_run_at,
       (SELECT array_agg(t.event_type::text ORDER BY t.occurred_at, t.position)
        FROM runledger.job_timeline t WHERE t.job_id = j.id)
FROM runledger.jobs j
"""
INVARIANTS = {
    "one place for a live job, none for an ended one": """
        SELECT q.id FROM runledger.job_queue q WHERE (q.final_status IS NULL)::int <>
          (SELECT count(*) FROM runledger.job_ready r WHERE r.job_id = q.id)
          + (SELECT count(*) FROM runledger.job_scheduled s WHERE s.job_id = q.id)
          + (SELECT count(*) FROM runledger.job_leases l WHERE l.job_id = q.id)""",
    "a place belongs to a job and repeats its facts": """
        SELECT p.job_id FROM (
          SELECT job_id, job_type, priority, run_number FROM runledger.job_ready
          UNION ALL SELECT job_id, job_type, priority, run_number FROM runledger.job_scheduled
          UNION ALL SELECT job_id, job_type, priority, run_number FROM runledger.job_leases) p
        LEFT JOIN runledger.job_queue q ON q.id = p.job_id
        WHERE (p.job_type, p.priority, p.run_number) IS DISTINCT FROM (q.job_type, q.priority, q.run_number)""",
    "attempts that count are 1..n in each run": """
        SELECT job_id FROM runledger.job_attempts WHERE outcome <> 'SNOOZED'
        GROUP BY job_id, run_number HAVING min(attempt) <> 1 OR max(attempt) <> count(*)""",
    "attempts of a run do not overlap": """
        SELECT job_id FROM (
          SELECT job_id, leased_at, lag(finished_at) OVER (PARTITION BY job_id ORDER BY lease_token) AS before
          FROM runledger.job_attempts) a WHERE before > leased_at""",
    "tokens are used once": """
        SELECT lease_token FROM (SELECT lease_token FROM runledger.job_attempts
          UNION ALL SELECT lease_token FROM runledger.job_leases) t GROUP BY 1 HAVING count(*) > 1""",
    "no run succeeds twice": """
        SELECT job_id FROM runledger.job_attempts WHERE outcome = 'SUCCEEDED'
        GROUP BY job_id, run_number HAVING count(*) > 1""",
    "dead letters and dead-lettered runs are the same": """
        SELECT q.id FROM runledger.job_queue q FULL JOIN runledger.job_dead_letters d
          ON d.job_id = q.id AND d.run_number = q.run_number
        WHERE (q.final_status = 'DEAD_LETTERED' AND d.job_id IS NULL) OR (q.id IS NULL AND NOT EXISTS (
          SELECT FROM runledger.job_queue later WHERE later.id = d.job_id AND later.run_number > d.run_number))""",
    "one job for each key": """
        SELECT idempotency_key FROM runledger.job_queue WHERE idempotency_key IS NOT NULL
        GROUP BY job_type, organization_id, idempotency_key HAVING count(*) > 1""",
}
INVARIANT_QUERY = " UNION ALL ".join(
    f"SELECT '{name}' AS broken, count(*) FROM ({query}) q{index} HAVING count(*) > 0"
    for index, (name, query) in enumerate(INVARIANTS.items())
)


class QueueMachine(RuleBasedStateMachine):
    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__()
        self.connection = connection
        self.jobs: dict[str, ModelJob] = {}
        self.due: dict[str, Any] = {}
        self.leases: list[ClaimedJob] = []
        self.keys: dict[tuple[str, str], tuple[str, int]] = {}
        self.paused: set[str] = set()
        self.disabled: set[str] = set()
        self.highest_token = 0

    @initialize()
    def empty(self) -> None:
        self.connection.execute(EMPTY_ALL)
        for job_type in TYPES:
            a_definition(
                self.connection, job_type, crash_budget=CRASH_BUDGET, retry=RetryPolicy(base_seconds=60, jitter=False)
            )

    def live(self) -> dict[int, tuple[ModelJob, ModelLease]]:
        return {job.lease.token: (job, job.lease) for job in self.jobs.values() if job.lease}

    def any_job(self, data: st.DataObject) -> ModelJob:
        assume(self.jobs)
        return self.jobs[data.draw(st.sampled_from(sorted(self.jobs)), label="job")]

    def any_lease(self, data: st.DataObject) -> ClaimedJob:
        """Live ones are likelier, because most of all leases are history."""
        assume(self.leases)
        live = [lease for lease in self.leases if lease.lease_token in self.live()]
        pool = live if live and data.draw(st.booleans(), label="a live one") else self.leases
        return data.draw(st.sampled_from(pool), label="lease")

    def refused(self, error: type[Exception], call: Any, *arguments: Any, **options: Any) -> None:
        try:
            call(self.connection, *arguments, **options)
        except error:
            return
        raise AssertionError(f"{call.__name__} should have raised {error.__name__}")

    @rule(
        job_type=st.sampled_from(TYPES),
        priority=st.integers(-1, 1),
        max_attempts=st.integers(1, 3),
        delay=st.sampled_from([None, 0, 600]),
        is_rolled_back=st.integers(0, 5).map(lambda drawn: drawn == 5),
    )
    def enqueue(
        self, job_type: str, priority: int, max_attempts: int, delay: float | None, is_rolled_back: bool
    ) -> None:
        request = JobRequest(job_type, priority=priority, max_attempts=max_attempts, delay=delay)
        if job_type in self.disabled:
            self.refused(errors.DefinitionNotFoundOrDisabled, enqueue_job, request)
            return
        with self.connection.transaction(force_rollback=is_rolled_back):
            job = enqueue_job(self.connection, request)
        if not is_rolled_back:
            self.add(str(job.job_id), job_type, priority, max_attempts, "scheduled" if delay else "ready")

    def add(self, job_id: str, job_type: str, priority: int, max_attempts: int, place: str) -> None:
        assert job_id not in self.jobs
        assert job_id > max(self.jobs, default="")
        self.jobs[job_id] = ModelJob(job_id, job_type, priority, max_attempts, place)

    @rule(
        job_type=st.sampled_from(TYPES),
        key=st.sampled_from(["k1", "k2"]),
        payload=st.integers(0, 1),
        is_rolled_back=st.integers(0, 5).map(lambda drawn: drawn == 5),
    )
    def enqueue_keyed(self, job_type: str, key: str, payload: int, is_rolled_back: bool) -> None:
        request = JobRequest(job_type, {"n": payload}, idempotency_key=key)
        holder = self.keys.get((job_type, key))
        if holder is None and job_type in self.disabled:
            self.refused(errors.DefinitionNotFoundOrDisabled, enqueue_job, request)
        elif holder is not None and holder[1] != payload:
            self.refused(errors.IdempotencyConflict, enqueue_job, request)
        else:
            with self.connection.transaction(force_rollback=is_rolled_back):
                answer = enqueue_job(self.connection, request)
            assert answer.is_new == (holder is None)
            if holder is not None:
                model = self.jobs[holder[0]]
                assert (str(answer.job_id), answer.status, answer.run_number) == (holder[0], model.status, model.run)
            elif not is_rolled_back:
                self.keys[job_type, key] = (str(answer.job_id), payload)
                self.add(str(answer.job_id), job_type, 0, 3, "ready")

    @rule(
        limit=st.integers(0, 3),
        types=st.sampled_from([(), ("alpha",), ("beta",), TYPES, ("beta", "alpha", "unknown")]),
        worker_id=st.sampled_from(WORKERS),
    )
    def claim(self, limit: int, types: tuple[str, ...], worker_id: str) -> None:
        runnable = {job_type for job_type in types if job_type not in self.paused}
        line = sorted(
            (job for job in self.jobs.values() if job.place == "ready" and job.job_type in runnable),
            key=lambda job: (-job.priority, self.due[job.job_id], job.job_id),
        )

        claimed = claim_jobs(self.connection, worker_id=worker_id, job_types=types, limit=limit, lease_ttl_seconds=TTL)

        assert [one.job_id for one in claimed] == [job.job_id for job in line[:limit]]
        for one, job in zip(claimed, line, strict=False):
            stored = job.shown_checkpoint
            lease = job.claim(one.lease_token, worker_id)
            assert (one.attempt, one.run_number, one.max_attempts) == (lease.attempt, job.run, job.max_attempts)
            assert one.checkpoint == (None if stored is None else json.dumps(stored))
        tokens = [one.lease_token for one in claimed]
        assert len(set(tokens)) == len(tokens)
        assert min(tokens, default=self.highest_token + 1) > self.highest_token
        self.highest_token = max([self.highest_token, *tokens])
        self.leases += claimed

    @rule(data=st.data(), workers=st.sampled_from([(), ("w1",), WORKERS]))
    def renew(self, data: st.DataObject, workers: tuple[str, ...]) -> None:
        overdue = data.draw(st.sets(st.sampled_from(sorted(self.live()))) if self.live() else st.just(set()))

        renewed = renew_leases(
            self.connection, worker_ids=workers, lease_ttl_seconds=TTL, overdue_tokens=sorted(overdue)
        )

        assert renewed == {
            job.job_id: token
            for token, (job, lease) in self.live().items()
            if lease.worker_id in workers and token not in overdue and not lease.is_lapsed
        }

    @rule(
        data=st.data(),
        done=st.none() | st.integers(-1, 3),
        total=st.none() | st.integers(-1, 3),
        checkpoint=st.sampled_from([None, 1, {"page": 2}]),
    )
    def progress(self, data: st.DataObject, done: int | None, total: int | None, checkpoint: Any) -> None:
        lease = self.any_lease(data)
        job = self.jobs[lease.job_id]
        text = None if checkpoint is None else json.dumps(checkpoint)
        call = (lease.job_id, lease.lease_token)
        values = {"done": done, "total": total, "checkpoint": text}
        if not job.admits(lease.lease_token, LeaseCheck.LIVE):
            self.refused(errors.LeaseLost, save_progress, *call, **values)
        elif job.save_progress(done, total, checkpoint):
            save_progress(self.connection, *call, **values)
        else:
            self.refused(errors.InvalidProgress, save_progress, *call, **values)

    @rule(data=st.data(), size=st.integers(1, 3), check=st.sampled_from([LeaseCheck.LIVE] * 3 + list(LeaseCheck)))
    def settle(self, data: st.DataObject, size: int, check: LeaseCheck) -> None:
        """Ends for any leases ever handed out, in one batch; a job has at most one of them here."""
        ends: dict[tuple[str, int], tuple[ClaimedJob, str]] = {}
        for _ in range(size):
            lease = self.any_lease(data)
            ends[lease.job_id, lease.lease_token] = (lease, data.draw(st.sampled_from(sorted(ENDS)), label="end"))
        expected = {
            lease.job_id: end
            for lease, end in ends.values()
            if self.jobs[lease.job_id].admits(lease.lease_token, LeaseCheck.LIVE if end == "succeeded" else check)
        }

        settled = settle_jobs(self.connection, [ENDS[end][0](lease) for lease, end in ends.values()], lease_check=check)

        assert settled == set(expected)
        for job_id, end in expected.items():
            ENDS[end][1](self.jobs[job_id])

    @rule(data=st.data())
    def age_a_lease(self, data: st.DataObject) -> None:
        assume(self.live())
        _, lease = self.live()[data.draw(st.sampled_from(sorted(self.live())), label="token")]
        self.connection.execute(
            "UPDATE runledger.job_leases SET lease_expires_at = clock_timestamp() WHERE lease_token = %s",
            (lease.token,),
        )
        lease.is_lapsed = True

    @rule()
    def reap(self) -> None:
        recovered = reap_lapsed_leases(self.connection)
        expected: dict[str, set[str]] = {"retried": set(), "dead_lettered": set()}
        for job, lease in list(self.live().values()):
            if lease.is_lapsed:
                expected[job.fail_by_decision("job.lease_expired")].add(job.job_id)
        assert (set(recovered.retried), set(recovered.dead_lettered)) == (
            expected["retried"],
            expected["dead_lettered"],
        )

    @rule(data=st.data(), worker_id=st.sampled_from(WORKERS))
    def a_worker_dies(self, data: st.DataObject, worker_id: str) -> None:
        held = sorted(token for token, (_, lease) in self.live().items() if lease.worker_id == worker_id)
        assume(held)
        running = data.draw(st.none() | st.sampled_from(held), label="running")
        ran = [token for token in held if token != running and data.draw(st.booleans(), label="ran")]

        settle_dead_worker(self.connection, WorkerDeath(worker_id, CRASH, running=running, ran_unsettled=ran))

        for token in held:
            job, _ = self.live()[token]
            if token == running:
                job.fail_by_decision("job.worker_crash", is_crash=True)
            elif token in ran:
                job.fail_by_decision("job.outcome_lost", place="ready")
            else:
                job.release()

    @rule(is_aged=st.booleans())
    def promote(self, is_aged: bool) -> None:
        waiting = [job for job in self.jobs.values() if job.place == "scheduled"]
        if is_aged:
            self.connection.execute("UPDATE runledger.job_scheduled SET next_run_at = next_run_at - interval '1 day'")
        promotion = promote_due_jobs(self.connection)
        assert promotion.promoted == (len(waiting) if is_aged else 0)
        assert (promotion.next_due_seconds is None) == (is_aged or not waiting)
        for job in waiting if is_aged else ():
            job.place = "ready"
        assert promotion.has_ready == any(job.place == "ready" for job in self.jobs.values())

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = self.any_job(data)
        if job.status.is_final:
            self.refused(errors.InvalidStateTransition, cancel_job, job.job_id, scope=ANY)
        else:
            cancel_job(self.connection, job.job_id, scope=ANY)
            job.cancel()

    @rule(data=st.data())
    def an_attempt_ends_too_late(self, data: st.DataObject) -> None:
        """Any attempt of a job, an old one too: only the last one's end is what a requeue waits for."""
        job = self.any_job(data)
        rows = self.connection.execute(
            "SELECT lease_token FROM runledger.job_attempts WHERE job_id = %s ORDER BY 1", (job.job_id,)
        ).fetchall()
        assume(rows)
        tokens = [row[0] for row in rows]
        token = data.draw(st.sampled_from(tokens), label="token")
        is_news = job.is_quiescing and token == tokens[-1]

        assert quiesce_canceled(self.connection, [job.job_id], [token]) == ([job.job_id] if is_news else [])

        if is_news:
            job.is_quiescing = False

    @rule(data=st.data(), is_quiesced=st.booleans())
    def requeue(self, data: st.DataObject, is_quiesced: bool) -> None:
        job = self.any_job(data)
        if is_quiesced and job.is_quiescing:
            self.connection.execute(
                "UPDATE runledger.job_queue SET quiesces_at = clock_timestamp() WHERE id = %s", (job.job_id,)
            )
            job.is_quiescing = False
        if job.status not in (JobStatus.DEAD_LETTERED, JobStatus.CANCELED):
            self.refused(errors.InvalidStateTransition, requeue_job, job.job_id, scope=ANY)
        elif job.is_quiescing:
            self.refused(errors.CancellationNotQuiesced, requeue_job, job.job_id, scope=ANY)
        else:
            job.requeue()
            assert requeue_job(self.connection, job.job_id, scope=ANY) == job.run

    @rule(data=st.data(), hours=st.sampled_from([-1, 1]))
    def reschedule(self, data: st.DataObject, hours: int) -> None:
        job = self.any_job(data)
        row = self.connection.execute("SELECT now() + %s * interval '1 hour'", (hours,)).fetchone()
        assert row is not None
        if job.status is not JobStatus.PENDING:
            self.refused(errors.InvalidStateTransition, reschedule_job, job.job_id, next_run_at=row[0], scope=ANY)
        else:
            reschedule_job(self.connection, job.job_id, next_run_at=row[0], scope=ANY)
            job.place = "ready" if hours < 0 else "scheduled"
            job.events.append("RESCHEDULED")

    @rule(job_type=st.sampled_from(TYPES))
    def pause_or_resume(self, job_type: str) -> None:
        set_definition_paused(self.connection, job_type, is_paused=job_type not in self.paused)
        self.paused ^= {job_type}

    @rule(job_type=st.sampled_from(TYPES))
    def disable_or_enable(self, job_type: str) -> None:
        set_definition_enabled(self.connection, job_type, is_enabled=job_type in self.disabled)
        self.disabled ^= {job_type}

    @invariant()
    def every_job_is_as_the_model_says(self) -> None:
        rows = self.connection.execute(PROJECTION).fetchall()
        self.due = {row[0]: row[-2] for row in rows}
        assert {row[0]: row[1:-2] for row in rows} == {job.job_id: job.projection() for job in self.jobs.values()}
        assert {row[0]: row[-1] for row in rows} == {job.job_id: job.events for job in self.jobs.values()}

    @invariant()
    def the_tables_agree_with_each_other(self) -> None:
        assert self.connection.execute(INVARIANT_QUERY).fetchall() == []


def test_the_queue_does_what_the_model_says(connection):
    examples = int(os.environ.get("RUNLEDGER_MACHINE_EXAMPLES", "70"))
    run_state_machine_as_test(
        lambda: QueueMachine(connection),
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
