"""The duties of the keeper, one tick at a time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from runtime.benches import KeeperBench, scalar
from runtime.hosts import Connection, until

from runledger import DatabaseUnavailable, JobStatus, Outcome, Scope
from runledger.core.jobs import ClaimedJob
from runledger.postgres.operations import cancel_job
from runledger.postgres.settle import settle_jobs
from runledger.runtime import wakeups
from runledger.runtime.obituary import Obituary
from runledger.runtime.slots import SlotState
from runledger.runtime.tally import Tally, TallyBoard
from runledger.testing.factories import a_definition, a_job, a_leased_job, age_lease, succeeded

MakeKeeper = Callable[..., KeeperBench]
NOBODY = 2**22 - 1
"""No process has this number: the largest that Linux can be told to give away."""


def ends_in(connection: Connection, job: ClaimedJob) -> timedelta:
    left: timedelta = scalar(
        connection,
        "SELECT lease_expires_at - clock_timestamp() FROM runledger.job_leases WHERE job_id = %s",
        job.job_id,
    )
    return left


def an_obituary(worker_id: str, cause: str = "crash", *, running: int = 0, begun: tuple[int, ...] = ()) -> Obituary:
    return Obituary(worker_id, cause, 0, signal.SIGKILL, running, list(begun), 0.5 if running else None, 40, 1_024)


def test_leases_of_a_living_worker_are_renewed(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job])
    age_lease(connection, job, seconds=50)

    bench.keeper.tick()

    assert ends_in(connection, job) > timedelta(seconds=55)


def test_leases_of_other_hosts_and_of_earlier_processes_are_not_renewed(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    earlier = a_leased_job(connection, "earlier", worker_id=bench.live_in(slot, incarnation=1))
    foreign = a_leased_job(connection, "foreign", worker_id="elsewhere.0.1")
    own = a_leased_job(connection, "own", worker_id=bench.live_in(slot, incarnation=2))
    bench.run_in(slot, [own])
    for job in (earlier, foreign, own):
        age_lease(connection, job, seconds=50)

    bench.keeper.tick()

    assert ends_in(connection, own) > timedelta(seconds=55)
    assert ends_in(connection, earlier) < timedelta(seconds=11)
    assert ends_in(connection, foreign) < timedelta(seconds=11)


def test_an_attempt_past_its_deadline_is_not_renewed(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job])
    slot.begin(0, job.lease_token, time.monotonic_ns(), time.monotonic_ns() - 1)
    age_lease(connection, job, seconds=50)

    bench.keeper.tick()

    assert ends_in(connection, job) < timedelta(seconds=11)


def test_nobody_vouches_for_a_stopped_worker(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            job = a_leased_job(connection, worker_id=bench.live_in(slot, pid=process.pid))
            bench.run_in(slot, [job])
            age_lease(connection, job, seconds=50)
            process.send_signal(signal.SIGSTOP)
            until(lambda: ") T " in Path(f"/proc/{process.pid}/stat").read_text(), what="the stop")

            bench.keeper._renew()
            assert ends_in(connection, job) < timedelta(seconds=11)
            process.send_signal(signal.SIGCONT)
            until(lambda: ") T " not in Path(f"/proc/{process.pid}/stat").read_text(), what="the resumption")
            bench.keeper._renew()

            assert ends_in(connection, job) > timedelta(seconds=55)
        finally:
            process.kill()


def test_a_renewal_that_failed_is_tried_again_at_the_next_tick(
    connection: Connection, make_keeper: MakeKeeper, database_url: str
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job])
    age_lease(connection, job, seconds=50)
    with bench.link.autocommit() as ledger:
        ledger.driver.execute("SELECT 1")
    connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE application_name = 'runledger:keeper' AND datname = current_database()"
    )

    with pytest.raises(DatabaseUnavailable):
        bench.keeper.tick()
    bench.keeper.tick()

    assert ends_in(connection, job) > timedelta(seconds=55)


def test_a_lease_that_no_slot_knows_is_left_to_lapse(connection: Connection, make_keeper: MakeKeeper) -> None:
    """The answer to its claim was lost; renewed with its worker's others, it would never run."""
    bench = make_keeper()
    [slot] = bench.slots
    worker_id = bench.live_in(slot)
    known = a_leased_job(connection, "known", worker_id=worker_id)
    lost = a_leased_job(connection, "lost", worker_id=worker_id)
    bench.run_in(slot, [known])

    for _ in range(2):
        for job in (known, lost):
            age_lease(connection, job, seconds=20)
        bench.keeper._renew()

    assert ends_in(connection, known) > timedelta(seconds=55)
    assert ends_in(connection, lost) < timedelta(seconds=45)


def test_jobs_behind_a_long_one_are_given_back_once(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    worker_id = bench.live_in(slot)
    jobs = [a_leased_job(connection, f"type.{number}", worker_id=worker_id) for number in range(3)]
    bench.run_in(slot, jobs, position=0, seconds_ago=1.5)

    bench.keeper.tick()

    assert bench.job(jobs[0].job_id).status is JobStatus.LEASED
    assert {(bench.job(job.job_id).status, bench.job(job.job_id).attempt) for job in jobs[1:]} == {
        (JobStatus.PENDING, 0)
    }
    assert bench.attempts(jobs[1].job_id) == []


def test_jobs_behind_a_short_one_are_left_alone(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    worker_id = bench.live_in(slot)
    jobs = [a_leased_job(connection, f"type.{number}", worker_id=worker_id) for number in range(2)]
    bench.run_in(slot, jobs, position=0, seconds_ago=0.3)

    bench.keeper.tick()

    assert {bench.job(job.job_id).status for job in jobs} == {JobStatus.LEASED}


def test_a_running_attempt_that_was_cancelled_is_interrupted(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job], seconds_ago=0.5)
    cancel_job(connection, job.job_id, scope=Scope.any())
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        bench.keeper.tick()
        bench.keeper._check_running()
    finally:
        signal.signal(signal.SIGUSR2, before)

    assert slot.interrupted_token == job.lease_token
    assert received == [signal.SIGUSR2], "told exactly once"


def test_a_running_attempt_that_holds_its_lease_is_not_interrupted(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    job = a_leased_job(connection, worker_id=bench.live_in(slot))
    bench.run_in(slot, [job], seconds_ago=0.5)

    bench.keeper.tick()

    assert slot.interrupted_token == 0


@pytest.mark.parametrize(
    ("cause", "outcome", "code", "attempt"),
    [
        ("crash", Outcome.PANICKED, "job.worker_crash", 1),
        ("timeout", Outcome.TIMEOUT, "job.timeout_exceeded", 1),
        ("memory", Outcome.PANICKED, "job.memory_exceeded", 1),
        ("shutdown", Outcome.RELEASED, None, 0),
    ],
)
def test_the_running_attempt_of_a_dead_worker_ends_by_the_cause(
    connection: Connection, make_keeper: MakeKeeper, cause: str, outcome: Outcome, code: str | None, attempt: int
) -> None:
    bench = make_keeper()
    job = a_leased_job(connection, worker_id="test.0.1")

    bench.die(an_obituary("test.0.1", cause, running=job.lease_token, begun=(job.lease_token,)))
    bench.keeper.tick()

    [stored] = bench.attempts(job.job_id)
    assert (stored.outcome, stored.error_code) == (outcome, code)
    assert bench.job(job.job_id).attempt == attempt
    if cause != "shutdown":
        assert (stored.exit_signal, stored.cpu_ms, stored.max_rss_kb) == (signal.SIGKILL, 40, 1_024)


def test_attempts_that_died_with_their_worker_are_in_the_figures_of_the_host(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    board = TallyBoard(1)
    bench = make_keeper(tally=Tally(board, board.keepers_page))
    job = a_leased_job(connection, worker_id="test.0.1", max_attempts=1)

    bench.die(an_obituary("test.0.1", running=job.lease_token, begun=(job.lease_token,)))
    bench.keeper.tick()

    durations, _, ended = board.total()
    assert [*durations] == [(job.job_type, "PANICKED")]
    assert ended == {(job.job_type, "DEAD_LETTERED"): [1]}


def test_what_a_dead_worker_had_not_begun_goes_back_and_what_it_had_ended_is_retried(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    ended, running, waiting, unheard = (
        a_leased_job(connection, name, worker_id="test.0.1") for name in ("ended", "running", "waiting", "unheard")
    )

    bench.die(an_obituary("test.0.1", running=running.lease_token, begun=(ended.lease_token, running.lease_token)))
    bench.keeper.tick()

    assert [one.error_code for one in bench.attempts(ended.job_id)] == ["job.outcome_lost"]
    assert [one.outcome for one in bench.attempts(running.job_id)] == [Outcome.PANICKED]
    for job in (waiting, unheard):
        assert bench.attempts(job.job_id) == []
        assert (bench.job(job.job_id).status, bench.job(job.job_id).attempt) == (JobStatus.PENDING, 0)


def test_a_dead_worker_can_never_report_a_success(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    job = a_leased_job(connection, worker_id="test.0.1")
    bench.die(an_obituary("test.0.1", running=job.lease_token, begun=(job.lease_token,)))
    bench.keeper.tick()

    assert settle_jobs(connection, [succeeded(job)]) == set()
    assert bench.job(job.job_id).status is JobStatus.PENDING


def test_many_deaths_in_one_read_are_all_settled(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    a_definition(connection)
    jobs = [a_leased_job(connection, worker_id=f"test.{number}.1") for number in range(20)]
    for number, job in enumerate(jobs):
        bench.die(an_obituary(f"test.{number}.1", running=job.lease_token, begun=(job.lease_token,)))

    bench.keeper.tick()

    assert {bench.attempts(job.job_id)[0].outcome for job in jobs} == {Outcome.PANICKED}


def test_half_a_line_waits_for_its_other_half(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    job = a_leased_job(connection, worker_id="test.0.1")
    line = an_obituary("test.0.1", running=job.lease_token, begun=(job.lease_token,)).to_line()

    os.write(bench.shared.obituaries.write, line[:20])
    bench.keeper.tick()
    assert bench.attempts(job.job_id) == []
    os.write(bench.shared.obituaries.write, line[20:])
    bench.keeper.tick()

    assert len(bench.attempts(job.job_id)) == 1


def test_a_stopping_keeper_settles_the_dead_before_it_ends(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    job = a_leased_job(connection, worker_id="test.0.1")
    bench.die(an_obituary("test.0.1", "shutdown", running=job.lease_token, begun=(job.lease_token,)))
    bench.keeper.is_stopping = True

    assert bench.keeper.tick() is None

    assert [one.outcome for one in bench.attempts(job.job_id)] == [Outcome.RELEASED]


def test_the_keeper_of_a_dead_supervisor_returns_the_leases_of_its_workers(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    worker_id = bench.live_in(slot, pid=NOBODY)
    jobs = [a_leased_job(connection, f"type.{number}", worker_id=worker_id) for number in range(2)]
    bench.run_in(slot, jobs)

    bench.keeper.take_over()

    assert {(bench.job(job.job_id).status, bench.job(job.job_id).attempt) for job in jobs} == {(JobStatus.PENDING, 0)}


def test_due_jobs_are_promoted_and_idle_workers_woken(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper(2)
    idle, busy = bench.slots
    bench.live_in(idle)
    bench.live_in(busy, state=SlotState.BUSY)
    job = a_job(connection, delay=60)
    connection.execute("UPDATE runledger.job_scheduled SET next_run_at = clock_timestamp()")

    bench.keeper.tick()

    assert scalar(connection, "SELECT count(*) FROM runledger.job_ready WHERE job_id = %s", str(job.job_id)) == 1
    assert bench.was_woken(idle)
    assert not bench.was_woken(busy)


def test_the_keeper_wakes_for_the_next_due_job(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    a_job(connection, delay=0.2)

    pause = bench.keeper.tick()

    assert pause is not None
    assert pause <= 0.21


def test_a_host_with_idle_workers_announces_itself_and_withdraws(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    bench.keeper.tick()
    assert connection.execute("SELECT host_id FROM runledger.job_listeners").fetchall() == [("test",)]

    bench.keeper.is_stopping = True

    assert bench.keeper.tick() is None
    assert connection.execute("SELECT host_id FROM runledger.job_listeners").fetchall() == []


def test_a_host_without_idle_workers_announces_nothing(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot, state=SlotState.BUSY)

    bench.keeper.tick()

    assert connection.execute("SELECT host_id FROM runledger.job_listeners").fetchall() == []


def test_a_host_listens_as_soon_as_it_is_idle(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot, state=SlotState.BUSY)
    pause = bench.keeper.tick()
    assert pause is not None
    assert pause <= wakeups.LOOK_EVERY_SECONDS
    slot.turn(SlotState.IDLE, time.monotonic_ns())

    def is_listening() -> bool:
        bench.keeper.tick()
        return connection.execute("SELECT FROM runledger.job_listeners").fetchone() is not None

    assert until(is_listening, within=wakeups.STAY_SECONDS / 2, what="the announcement")


def test_a_moment_without_idle_workers_is_no_reason_to_withdraw(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    bench.keeper.tick()
    slot.turn(SlotState.BUSY, time.monotonic_ns())

    bench.keeper._wake_ups.look_when_due(time.monotonic() + wakeups.STAY_SECONDS)
    assert connection.execute("SELECT host_id FROM runledger.job_listeners").fetchall() == [("test",)]

    bench.keeper._wake_ups.look_when_due(time.monotonic() + wakeups.STAY_SECONDS + wakeups.IDLE_SECONDS)
    assert connection.execute("SELECT host_id FROM runledger.job_listeners").fetchall() == []


def test_an_enqueue_wakes_an_idle_worker_of_a_listening_host(connection: Connection, make_keeper: MakeKeeper) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    bench.keeper.tick()
    bench.was_woken(slot)

    a_job(connection)

    def woken() -> bool:
        bench.keeper.tick()
        return bench.was_woken(slot)

    assert until(woken, what="the wake-up")


def test_a_host_that_hears_much_and_has_nothing_to_do_stops_listening_for_a_while(
    connection: Connection, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "MOST_HEARD_PER_SECOND", 0.1)
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    bench.keeper.tick()
    assert connection.execute("SELECT FROM runledger.job_listeners").fetchone() is not None

    for _ in range(4):
        a_job(connection)

    def is_deaf() -> bool:
        bench.keeper.tick()
        return connection.execute("SELECT FROM runledger.job_listeners").fetchone() is None

    until(is_deaf, within=wakeups.DEAF_SECONDS / 2, what="the end of listening")
    bench.keeper._wake_ups.look_when_due(bench.keeper._wake_ups.look_at)
    assert connection.execute("SELECT FROM runledger.job_listeners").fetchone() is not None


def test_a_host_that_runs_what_it_hears_goes_on_listening(
    connection: Connection, make_keeper: MakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "MOST_HEARD_PER_SECOND", 3.0)
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    bench.keeper.tick()
    for number in range(4):
        a_job(connection)
        slot.begin(0, number + 1, 1, 2)
        slot.end()

    def has_heard_all() -> bool:
        bench.keeper.tick()
        return bench.keeper._wake_ups._heard_since > heard_since

    heard_since = bench.keeper._wake_ups._heard_since
    until(has_heard_all, what="a look at what was heard")
    assert connection.execute("SELECT FROM runledger.job_listeners").fetchone() is not None


def test_a_worker_that_is_replaced_by_a_fresh_one_is_no_reason_to_stop_listening(
    connection: Connection, make_keeper: MakeKeeper
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    for token in range(1, 1_001):
        slot.begin(0, token, 1, 2)
        slot.end()
    bench.keeper._wake_ups._done_before = slot.jobs_done
    bench.keeper.tick()

    slot.reset(2, time.monotonic_ns())
    bench.live_in(slot)
    looked_at = time.monotonic() + wakeups.STAY_SECONDS + wakeups.RATE_SECONDS
    bench.keeper._wake_ups.look_when_due(looked_at)

    assert connection.execute("SELECT FROM runledger.job_listeners").fetchone() is not None
    assert bench.keeper._wake_ups.look_at <= looked_at + wakeups.STAY_SECONDS


def test_an_enqueue_that_rolled_back_wakes_nobody(
    connection: Connection, make_keeper: MakeKeeper, database_url: str
) -> None:
    bench = make_keeper()
    [slot] = bench.slots
    bench.live_in(slot)
    a_definition(connection)
    bench.keeper.tick()
    bench.was_woken(slot)

    with psycopg.connect(database_url) as other:
        a_job(other)
        other.rollback()
    bench.keeper.tick()

    assert bench.link.take_notifications() == []
