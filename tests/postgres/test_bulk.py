"""Many jobs at once: which are changed, which are left out, what is written, and what happens beside workers."""

from threading import Event
from uuid import UUID

import pytest
from postgres.observing import count, place_of, scalar, snapshot

from runledger.core.errors import InvalidRequest
from runledger.core.filters import JobFilter
from runledger.core.jobs import Scope
from runledger.core.states import JobStatus
from runledger.database.ledger import Ledger
from runledger.postgres import bulk, job_walks
from runledger.postgres.bulk import cancel_jobs, count_jobs, reprioritise_jobs, requeue_jobs
from runledger.postgres.claim import claim_jobs
from runledger.postgres.operations import cancel_job
from runledger.postgres.operator_actions import list_operator_actions
from runledger.postgres.priorities import reprioritise_job
from runledger.postgres.reads import get_job, list_job_events, list_jobs
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_definition, a_job, a_leased_job, claim_one, dead_lettered, succeeded

ANY = Scope.any()
TENANT = UUID(int=7)
PENDING, LEASED = JobFilter(status="PENDING"), JobFilter(status="LEASED")
DEAD, CANCELED = JobFilter(status="DEAD_LETTERED"), JobFilter(status="CANCELED")


def status_of(connection, job):
    return get_job(connection, job.job_id, scope=ANY).status


def mark_as_of_a_workflow(connection, job):
    for place, key in (("job_queue", "id"), ("job_ready", "job_id"), ("job_scheduled", "job_id")):
        connection.execute(
            f"UPDATE runledger.{place} SET workflow_run_id = gen_random_uuid() WHERE {key} = %s", (str(job.job_id),)
        )


def test_jobs_that_match_are_cancelled_wherever_they_wait_and_no_others(connection):
    ready, later = a_job(connection, "mail", tags=["a"]), a_job(connection, "mail", tags=["a"], delay=60)
    others = [a_job(connection, "report", tags=["a"]), a_job(connection, "mail")]
    running = a_leased_job(connection, "sum")

    done = cancel_jobs(connection, JobFilter("mail", "PENDING", tag="a"), scope=ANY, reason="not needed", actor="ada")

    assert (done.matched, done.changed, done.skipped, done.next_before) == (2, 2, 0, None)
    for job in (ready, later):
        stored = get_job(connection, job.job_id, scope=ANY)
        assert (stored.status, stored.status_reason) == (JobStatus.CANCELED, "not needed")
        event = list_job_events(connection, job.job_id, scope=ANY)[-1]
        assert (event.event_type, event.actor, event.reason) == ("CANCELED", "ada", "not needed")
        assert place_of(connection, job.job_id) == []
    assert {status_of(connection, job) for job in others} == {JobStatus.PENDING}
    assert status_of(connection, running) is JobStatus.LEASED


def test_a_bulk_cancel_says_the_same_as_single_cancels(connection):
    twins = [
        (a_job(connection), a_job(connection, "twin")),
        (a_leased_job(connection, "run"), a_leased_job(connection, "twin.run")),
    ]
    for single, _ in twins:
        cancel_job(connection, single.job_id, scope=ANY, reason="r", actor="a")
    for job_type, status in (("twin", "PENDING"), ("twin.run", "LEASED")):
        assert cancel_jobs(connection, JobFilter(job_type, status), scope=ANY, reason="r", actor="a").changed == 1

    for single, in_bulk in twins:
        records = [
            scalar(
                connection,
                "SELECT to_jsonb(q) - '{id,job_type,created_at,finished_at,quiesces_at}'::text[]"
                " FROM runledger.job_queue q WHERE id = %s",
                str(job.job_id),
            )
            for job in (single, in_bulk)
        ]
        assert records[0] == records[1]
        assert count(connection, "job_attempts") == 2


def test_running_attempts_lose_their_leases(connection):
    job = a_leased_job(connection)

    assert cancel_jobs(connection, LEASED, scope=ANY).changed == 1

    assert settle_jobs(connection, [succeeded(job)]) == set()
    assert requeue_jobs(connection, CANCELED, scope=ANY).changed == 0  # it may still run
    connection.execute("UPDATE runledger.job_queue SET quiesces_at = clock_timestamp()")
    assert requeue_jobs(connection, CANCELED, scope=ANY).changed == 1


def test_a_repetition_changes_nothing(connection):
    a_job(connection)
    settle_jobs(connection, [dead_lettered(a_leased_job(connection, "dead"))])
    reprioritise_jobs(connection, PENDING, 5, scope=ANY)
    requeue_jobs(connection, DEAD, scope=ANY)
    cancel_jobs(connection, PENDING, scope=ANY)
    before = snapshot(connection)

    assert cancel_jobs(connection, PENDING, scope=ANY).changed == 0
    assert requeue_jobs(connection, DEAD, scope=ANY).changed == 0
    assert snapshot(connection) == before


def test_batches_follow_each_other_and_cover_each_job_once(connection, monkeypatch):
    monkeypatch.setattr(job_walks, "LONGEST_WALK_OF_PLACES", 4)
    jobs = [a_job(connection, "mail" if number % 3 else "report") for number in range(10)]
    before, changed = None, 0
    for _ in range(20):
        batch = cancel_jobs(connection, JobFilter("mail", "PENDING"), scope=ANY, before=before, limit=2)
        assert batch.matched <= 2
        changed += batch.changed
        before = batch.next_before
        if before is None:
            break

    assert (before, changed) == (None, 6)
    assert [status_of(connection, job) is JobStatus.CANCELED for job in jobs] == [bool(n % 3) for n in range(10)]


def test_a_scope_is_never_left(connection):
    own, other = a_job(connection, organization_id=TENANT), a_job(connection)

    assert cancel_jobs(connection, PENDING, scope=Scope.organization(TENANT)).changed == 1

    assert status_of(connection, own) is JobStatus.CANCELED
    assert status_of(connection, other) is JobStatus.PENDING


def test_jobs_of_workflows_are_left_out_and_counted(connection):
    job, plain = a_job(connection), a_job(connection)
    mark_as_of_a_workflow(connection, job)

    done = cancel_jobs(connection, PENDING, scope=ANY)

    assert (done.matched, done.changed, done.skipped, done.of_workflows) == (2, 1, 1, 1)
    assert place_of(connection, job.job_id) == ["job_ready"]
    assert status_of(connection, plain) is JobStatus.CANCELED
    assert reprioritise_jobs(connection, PENDING, 3, scope=ANY).changed == 1


def test_dead_letters_wait_for_their_next_run(connection):
    job = a_leased_job(connection)
    settle_jobs(connection, [dead_lettered(job, code="mail.down")])

    assert requeue_jobs(connection, JobFilter(status="DEAD_LETTERED", error_code="other"), scope=ANY).matched == 0
    done = requeue_jobs(connection, JobFilter(status="DEAD_LETTERED", error_code="mail.down"), scope=ANY, actor="ada")

    assert (done.changed, done.skipped) == (1, 0)
    assert claim_one(connection).run_number == 2
    event = list_job_events(connection, job.job_id, scope=ANY)[-2]
    assert (event.event_type, event.actor, event.detail) == ("REQUEUED", "ada", {"next_run_number": 2})


def test_the_claim_follows_a_new_priority_and_a_requeue_keeps_it(connection):
    first, second, later = a_job(connection), a_job(connection, tags=["urgent"]), a_job(connection, delay=60)

    done = reprioritise_jobs(connection, JobFilter(status="PENDING", tag="urgent"), 9, scope=ANY, actor="ada")
    reprioritise_job(connection, later.job_id, 4, scope=ANY)

    assert done.changed == 1
    claimed = claim_one(connection)
    assert claimed.job_id == str(second.job_id)
    settle_jobs(connection, [dead_lettered(claimed)])
    requeue_jobs(connection, DEAD, scope=ANY)
    assert [get_job(connection, job.job_id, scope=ANY).priority for job in (first, second, later)] == [0, 9, 4]
    [event] = [one for one in list_job_events(connection, second.job_id, scope=ANY) if "PRIORITY" in one.event_type]
    assert (event.actor, event.detail) == ("ada", {"from": 0, "to": 9})


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (cancel_jobs, DEAD),
        (cancel_jobs, JobFilter()),
        (requeue_jobs, PENDING),
        (requeue_jobs, JobFilter(status="SUCCEEDED")),
        (lambda connection, wanted, scope: reprioritise_jobs(connection, wanted, 1, scope=scope), LEASED),
        (lambda connection, wanted, scope: reprioritise_jobs(connection, wanted, 2**31, scope=scope), PENDING),
    ],
)
def test_what_cannot_be_is_refused_before_any_sql(connect, change, wanted):
    closed = connect()
    closed.close()

    with pytest.raises(InvalidRequest):
        change(closed, wanted, scope=ANY)


def test_a_count_is_bounded(connection):
    for _ in range(5):
        a_job(connection)

    assert [count_jobs(connection, PENDING, scope=ANY, most=most) for most in (3, 4, 5, 6)] == [4, 5, 5, 5]


def test_rows_that_others_hold_are_skipped_and_never_waited_for(connection, connect):
    claimed, settled, free = a_job(connection, "held"), a_leased_job(connection, "run"), a_job(connection, "free")
    worker = connect(autocommit=False)
    claim_one(worker, "held")
    settle_jobs(worker, [succeeded(settled)])
    connection.execute("SET statement_timeout = '5s'")

    waiting, running = (cancel_jobs(connection, wanted, scope=ANY) for wanted in (PENDING, LEASED))
    worker.commit()

    assert (waiting.matched, waiting.changed, running.matched, running.changed) == (2, 1, 1, 0)
    assert status_of(connection, claimed) is JobStatus.LEASED
    assert status_of(connection, settled) is JobStatus.SUCCEEDED
    assert status_of(connection, free) is JobStatus.CANCELED


def test_a_job_that_was_claimed_after_it_was_found_is_not_taken_from_its_worker(connection, monkeypatch):
    job = a_job(connection)
    page = bulk._page

    def found_and_then_claimed(*arguments):
        found = page(*arguments)
        claim_one(connection)
        return found

    monkeypatch.setattr(bulk, "_page", found_and_then_claimed)

    done = cancel_jobs(connection, PENDING, scope=ANY)

    assert (done.matched, done.changed) == (1, 0)
    assert status_of(connection, job) is JobStatus.LEASED


def test_beside_busy_workers_nothing_deadlocks_and_no_job_is_lost_or_ends_twice(
    connection, connect, in_background, database_url
):
    a_definition(connection, "busy")
    jobs = [a_job(connection, "busy", delay=None if number % 5 else 0.01) for number in range(600)]
    is_over = Event()

    def work(worker, name):
        ended = set()
        while not is_over.is_set():
            claimed = claim_jobs(worker, worker_id=name, job_types=["busy"], limit=7, lease_ttl_seconds=60)
            results = [dead_lettered(job) if index % 3 == 0 else succeeded(job) for index, job in enumerate(claimed)]
            ended |= settle_jobs(worker, results)
        return ended

    working = [in_background(work, connect(), f"w{number}") for number in range(3)]
    try:
        with Ledger(database_url) as ledger:
            for round_ in range(8):
                ledger.reprioritise_jobs(JobFilter("busy"), round_, scope=ANY)
                ledger.cancel_jobs(JobFilter("busy"), scope=ANY, actor="ada")
                ledger.requeue_jobs(JobFilter("busy"), scope=ANY)
    finally:
        is_over.set()
        for one in working:
            one.result(20)

    stored = list_jobs(connection, scope=ANY, limit=1_000)
    assert len(stored) == len(jobs)
    for job in stored:
        assert len(place_of(connection, job.job_id)) == (0 if job.status.is_final else 1), job
    twice = "SELECT count(*) - count(DISTINCT (job_id, run_number, attempt)) FROM runledger.job_attempts"
    assert scalar(connection, twice) == 0


def test_the_operation_is_on_record_with_each_batch(connection, database_url, monkeypatch):
    a_leased_job(connection, "mail")
    for number in range(5):
        a_job(connection, "mail" if number else "report")
    monkeypatch.setattr(job_walks, "LONGEST_WALK_OF_PLACES", 2)
    seen = []

    class Stopped(Exception):
        pass

    def watch(done):
        seen.append(done.changed)
        if len(seen) == 2:
            raise Stopped

    with Ledger(database_url) as ledger:
        options = {"scope": ANY, "reason": "not needed", "actor": "ada"}
        with pytest.raises(Stopped):
            ledger.cancel_jobs(JobFilter("mail"), watch=watch, **options)
        canceled = "SELECT count(*) FROM runledger.job_queue WHERE final_status = 'CANCELED'"
        [action] = list_operator_actions(connection)
        assert (action.action, action.actor, action.reason) == ("job.cancel", "ada", "not needed")
        assert action.affected == seen[-1] == scalar(connection, canceled)
        done = ledger.cancel_jobs(JobFilter("mail"), **options)

    assert seen[-1] + done.changed == 5
    latest = list_operator_actions(connection)[0]
    assert latest.selection["job_type"] == "mail"
    assert latest.selection["status"] == ["PENDING", "LEASED"]
    assert (latest.affected, latest.detail["matched"]) == (done.changed, done.matched)
