"""A lease while its attempt runs: renewal, progress, checkpoint, logs."""

import pytest
from postgres.observing import count, scalar, snapshot, until, until_blocked

from runledger.core.errors import InvalidLeaseDuration, InvalidProgress, LeaseLost
from runledger.core.jobs import Scope
from runledger.core.states import LogLevel
from runledger.postgres.leases import renew_leases, save_progress, write_logs
from runledger.postgres.operations import cancel_job
from runledger.postgres.reads import get_job, list_job_logs
from runledger.postgres.settle import settle_jobs
from runledger.testing.factories import a_leased_job, age_lease, claim_one, failed, succeeded

ANY = Scope.any()


def remaining(connection, job):
    query = (
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM runledger.job_leases WHERE job_id = %s"
    )
    return float(scalar(connection, query, job.job_id))


def progress_of(connection, job):
    stored = get_job(connection, job.job_id, scope=ANY)
    return stored.progress_done, stored.progress_total, stored.checkpoint


def test_a_renewal_counts_from_now_for_every_lease_of_the_workers(connection):
    mine = [a_leased_job(connection, worker_id=f"worker-{index}") for index in range(2)]
    other = a_leased_job(connection, worker_id="somebody")

    renewed = renew_leases(connection, worker_ids=["worker-0", "worker-1"], lease_ttl_seconds=600)

    assert renewed == {job.job_id: job.lease_token for job in mine}
    assert all(590 < remaining(connection, job) <= 600 for job in mine)
    assert remaining(connection, other) <= 60


def test_a_renewal_skips_attempts_past_their_deadline(connection):
    job, overdue = a_leased_job(connection), a_leased_job(connection)

    renewed = renew_leases(
        connection, worker_ids=["worker-1"], lease_ttl_seconds=600, overdue_tokens=[overdue.lease_token]
    )

    assert renewed == {job.job_id: job.lease_token}
    assert remaining(connection, overdue) <= 60


def test_a_lapsed_lease_cannot_be_renewed(connection):
    job = a_leased_job(connection)
    age_lease(connection, job, seconds=60.001)
    before = snapshot(connection)

    assert renew_leases(connection, worker_ids=["worker-1"], lease_ttl_seconds=600) == {}
    assert snapshot(connection) == before


def test_a_renewal_never_waits_for_a_lease_that_is_being_settled(connection, connect):
    job, other = a_leased_job(connection), a_leased_job(connection)
    worker = connect(autocommit=False)
    settle_jobs(worker, [succeeded(job)])

    renewed = renew_leases(connection, worker_ids=["worker-1"], lease_ttl_seconds=600)

    assert set(renewed) == {other.job_id}


def test_a_renewal_without_workers_asks_nothing(connect):
    closed = connect()
    closed.close()

    assert renew_leases(closed, worker_ids=[], lease_ttl_seconds=1) == {}


@pytest.mark.parametrize("ttl", [0, -1])
def test_a_renewal_to_nothing_is_refused(connection, ttl):
    a_leased_job(connection)
    before = snapshot(connection)

    with pytest.raises(InvalidLeaseDuration):
        renew_leases(connection, worker_ids=["worker-1"], lease_ttl_seconds=ttl)

    assert snapshot(connection) == before


def test_progress_is_merged_with_what_is_stored(connection):
    job = a_leased_job(connection)

    save_progress(connection, job.job_id, job.lease_token, total=10)
    assert progress_of(connection, job) == (None, 10, None)
    save_progress(connection, job.job_id, job.lease_token, done=4, checkpoint='{"a": 1}')
    assert progress_of(connection, job) == (4, 10, {"a": 1})
    save_progress(connection, job.job_id, job.lease_token)
    assert progress_of(connection, job) == (4, 10, {"a": 1})
    save_progress(connection, job.job_id, job.lease_token, done=0, total=0)
    assert progress_of(connection, job) == (0, 0, {"a": 1})


def test_a_checkpoint_of_json_null_is_a_value(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, checkpoint="1")

    save_progress(connection, job.job_id, job.lease_token, checkpoint="null")

    assert scalar(connection, "SELECT checkpoint::text FROM runledger.jobs") == "null"
    settle_jobs(connection, [failed(job, retry_seconds=0)])
    assert claim_one(connection).checkpoint == "null"


@pytest.mark.parametrize(
    "values",
    [{"done": -1}, {"total": -1}, {"done": 3, "total": 2}, {"done": 11}, {"total": 3}],
    ids=["negative done", "negative total", "done above total", "done above stored", "total below stored"],
)
def test_invalid_progress_writes_nothing_and_leaves_the_lease(connection, values):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, done=4, total=10)
    before = snapshot(connection)

    with pytest.raises(InvalidProgress) as refused:
        save_progress(connection, job.job_id, job.lease_token, checkpoint='"new"', **values)

    assert refused.value.code == "job.invalid_progress"
    assert snapshot(connection) == before
    assert settle_jobs(connection, [succeeded(job)]) == {job.job_id}


def test_of_two_partial_updates_that_contradict_each_other_one_is_refused(connection, connect, in_background):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, done=1, total=10)
    first, second = connect(autocommit=False), connect()
    save_progress(first, job.job_id, job.lease_token, done=8)
    waiting = in_background(save_progress, second, job.job_id, job.lease_token, total=5)
    until_blocked(connection, second)

    first.commit()

    with pytest.raises(InvalidProgress):
        waiting.result(10)
    assert progress_of(connection, job) == (8, 10, None)


def test_partial_updates_of_two_connections_are_both_kept(connection, connect, in_background):
    job = a_leased_job(connection)
    first, second = connect(autocommit=False), connect()
    save_progress(first, job.job_id, job.lease_token, done=8)
    waiting = in_background(save_progress, second, job.job_id, job.lease_token, total=9, checkpoint="2")
    until_blocked(connection, second)

    first.commit()
    waiting.result(10)

    assert progress_of(connection, job) == (8, 9, 2)


def test_progress_of_an_earlier_attempt_is_never_cleared_by_omission(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, done=2, total=3)
    settle_jobs(connection, [failed(first, retry_seconds=0)])
    second = claim_one(connection)
    assert progress_of(connection, second) == (2, 3, None)

    save_progress(connection, second.job_id, second.lease_token, checkpoint='"only"')
    settle_jobs(connection, [failed(second, retry_seconds=0)])
    third = claim_one(connection)
    settle_jobs(connection, [succeeded(third)])

    assert progress_of(connection, third)[:2] == (2, 3)


def test_progress_is_judged_together_with_that_of_an_earlier_attempt(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, done=2, total=3)
    settle_jobs(connection, [failed(first, retry_seconds=0)])
    second = claim_one(connection)

    with pytest.raises(InvalidProgress):
        save_progress(connection, second.job_id, second.lease_token, done=4)
    save_progress(connection, second.job_id, second.lease_token, done=3)

    assert settle_jobs(connection, [succeeded(second)]) == {second.job_id}
    assert progress_of(connection, second) == (3, 3, None)


def test_progress_of_a_total_alone_survives_a_retry_and_a_cancel(connection):
    job = a_leased_job(connection)
    save_progress(connection, job.job_id, job.lease_token, total=3)
    settle_jobs(connection, [failed(job, retry_seconds=0)])
    again = claim_one(connection)
    assert progress_of(connection, again) == (None, 3, None)
    save_progress(connection, again.job_id, again.lease_token, done=1, checkpoint="7")

    cancel_job(connection, job.job_id, scope=ANY)

    assert progress_of(connection, job) == (1, 3, 7)


def test_progress_under_a_lapsed_or_foreign_lease_is_refused(connection):
    job = a_leased_job(connection)
    with pytest.raises(LeaseLost):
        save_progress(connection, job.job_id, job.lease_token + 1, done=1)
    age_lease(connection, job, seconds=60.001)
    before = snapshot(connection)

    with pytest.raises(LeaseLost) as lost:
        save_progress(connection, job.job_id, job.lease_token, done=-1)

    assert lost.value.code == "job.lease_owner_mismatch"
    assert snapshot(connection) == before


def test_progress_whose_lease_ends_while_it_waits_for_the_row_is_refused(connection, connect, in_background):
    job = a_leased_job(connection, lease_ttl_seconds=0.4)
    holder, late = connect(autocommit=False), connect()
    holder.execute("SELECT 1 FROM runledger.job_leases FOR UPDATE")
    saving = in_background(save_progress, late, job.job_id, job.lease_token, done=1)
    until_blocked(connection, late)
    until(lambda: remaining(connection, job) <= 0)

    holder.rollback()

    with pytest.raises(LeaseLost):
        saving.result(10)


def test_logs_are_kept_in_order_while_the_lease_exists(connection):
    job = a_leased_job(connection)
    entries = [(level, f"line {index}", '{"index": 1}') for index, level in enumerate(LogLevel)]

    write_logs(connection, job.job_id, job.lease_token, entries)
    write_logs(connection, job.job_id, job.lease_token + 1, entries)
    write_logs(connection, job.job_id, job.lease_token, [])

    logs = list_job_logs(connection, job.job_id, scope=ANY)
    assert [(log.level, log.message) for log in logs] == [(level, message) for level, message, _ in entries]
    assert {(log.attempt, log.run_number) for log in logs} == {(1, 1)}
    assert logs[0].fields == {"index": 1}
    settle_jobs(connection, [succeeded(job)])
    write_logs(connection, job.job_id, job.lease_token, entries)
    assert count(connection, "job_logs") == 4


def test_the_last_checkpoint_of_a_job_that_succeeded_is_kept(connection):
    first = a_leased_job(connection)
    save_progress(connection, first.job_id, first.lease_token, checkpoint="1")
    settle_jobs(connection, [failed(first, retry_seconds=0)])
    second = claim_one(connection)
    save_progress(connection, second.job_id, second.lease_token, checkpoint="2")

    settle_jobs(connection, [succeeded(second)])

    assert progress_of(connection, second)[2] == 2
