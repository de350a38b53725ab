"""Counts of workers, merged, and as Prometheus reads them from a real host."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families
from runtime.hosts import Connection, Desk, Host, until
from runtime.test_health import address, ask_when_open  # noqa: F401 - a fixture

from runledger import JobStatus, Outcome, SettledAttempt
from runledger.core.results import Ended
from runledger.postgres.recovery import Recovered
from runledger.postgres.stats import QueueStats
from runledger.runtime.link import DatabaseLink
from runledger.runtime.metrics import Metrics, _bounded_stats
from runledger.runtime.slots import SlotTable
from runledger.runtime.tally import BUCKETS, MOST_TYPES, OTHER, Tally, TallyBoard
from runledger.testing.factories import a_definition

StartHost = Callable[..., Host]
SOME_ID = UUID(int=1)
LONGEST = "t" * 200


def an_attempt(job_type: str = "mail.send", *, seconds: float = 0.02, waited: float = 1.5) -> SettledAttempt:
    return SettledAttempt(
        SOME_ID, job_type, 1, 1, 3, 7, "w", None, None, {}, Outcome.SUCCEEDED, JobStatus.SUCCEEDED, *[None] * 4,
        seconds, waited,
    )  # fmt: skip


def test_attempts_of_all_slots_are_summed() -> None:
    board = TallyBoard(2)
    for index in (0, 1):
        tally = Tally(board, index)
        tally.on_settled(an_attempt())
        tally.publish(is_idle=True)
    durations, waits, _ = board.total()
    assert sum(durations["mail.send", "SUCCEEDED"][:-1]) == 2
    assert durations["mail.send", "SUCCEEDED"][-1] == pytest.approx(0.04)
    assert waits["mail.send",][-1] == pytest.approx(3.0)


def test_the_keeper_counts_the_attempts_of_killed_workers_and_the_jobs_they_leave_behind() -> None:
    board = TallyBoard(1)
    tally = Tally(board, board.keepers_page)
    running = Ended("a", 1, Outcome.PANICKED, final_status=JobStatus.DEAD_LETTERED, started_ago=2.0)
    unstored = Ended("b", 2, Outcome.RETRYABLE, final_status=JobStatus.DEAD_LETTERED)
    again = Ended("c", 3, Outcome.RELEASED, is_refunded=True)
    tally.count_recovered(Recovered(ends=(("mail.send", running), ("mail.send", unstored), ("mail.send", again))))
    durations, waits, ended = board.total()
    assert {key: sum(values[:-1]) for key, values in durations.items()} == {("mail.send", "PANICKED"): 1}
    assert (waits, ended) == ({}, {("mail.send", "DEAD_LETTERED"): [2]})


def test_jobs_are_counted_once_they_end() -> None:
    tally = Tally(board := TallyBoard(1), 0)
    failed = replace(an_attempt(), outcome=Outcome.RETRYABLE)
    for final_status in (None, JobStatus.DEAD_LETTERED):
        tally.on_settled(replace(failed, final_status=final_status))
    tally.publish(is_idle=True)
    assert board.total().ended == {("mail.send", "DEAD_LETTERED"): [1]}
    assert sum(board.total().durations["mail.send", "RETRYABLE"][:-1]) == 2


def test_a_bucket_holds_what_is_at_most_its_bound() -> None:
    tally = Tally(board := TallyBoard(1), 0)
    for seconds in (BUCKETS[0], BUCKETS[-1] + 1):
        tally.on_settled(an_attempt(seconds=seconds))
    tally.publish(is_idle=True)
    [counts] = board.total()[0].values()
    assert (counts[0], counts[len(BUCKETS)]) == (1, 1)


def test_who_follows_in_a_slot_goes_on_counting() -> None:
    board = TallyBoard(1)
    for _ in range(3):
        tally = Tally(board, 0)
        tally.on_settled(an_attempt())
        tally.publish(is_idle=True)
    assert sum(board.total()[0]["mail.send", "SUCCEEDED"][:-1]) == 3


def test_types_beyond_the_bound_are_counted_together_and_always_fit() -> None:
    board = TallyBoard(1)
    tally = Tally(board, 0)
    for number in range(MOST_TYPES + 20):
        for _ in range(3):
            tally.on_settled(an_attempt(f"{number:03}{LONGEST}"[:200], seconds=1 / 3, waited=1e9 / 3))
    tally.publish(is_idle=True)
    durations, _, _ = board.total()
    assert len(durations) == MOST_TYPES + 1
    assert sum(durations[OTHER, "SUCCEEDED"][:-1]) == 3 * 20


def test_a_busy_worker_publishes_once_a_second() -> None:
    tally = Tally(board := TallyBoard(1), 0)
    for _ in range(2):
        tally.on_settled(an_attempt())
        tally.publish(is_idle=False)
    assert sum(board.total()[0]["mail.send", "SUCCEEDED"][:-1]) == 1


def test_queue_figures_of_types_beyond_the_bound_are_summed() -> None:
    stats = [QueueStats(f"t{n:03}", "default", True, False, 1, 2, 3, float(n)) for n in range(MOST_TYPES + 5)]
    found = _bounded_stats(stats)
    assert len(found) == MOST_TYPES + 1
    assert found[-1] == (OTHER, {"ready": 5, "scheduled": 10, "leased": 15}, MOST_TYPES + 4.0)


def test_dead_letters_of_a_type_begin_at_zero(connection: Connection, open_link: Callable[..., DatabaseLink]) -> None:
    a_definition(connection, "mail.send")
    text = Metrics(SlotTable(1).slots, TallyBoard(1), open_link("test")).text()
    assert 'runledger_jobs_ended_total{job_type="mail.send",status="DEAD_LETTERED"} 0.0' in text


@pytest.mark.process
def test_a_scrape_of_a_host_counts_every_attempt_across_its_workers(
    desk: Desk,
    start_host: StartHost,
    address: str,  # noqa: F811
) -> None:
    jobs = desk.enqueue("work", count=20)
    host = start_host(health_address=address, JOBS_MAX_GLOBAL_CONCURRENCY=2).ready()
    desk.wait_until_all_ended()

    def counted() -> bool:
        samples = {
            (one.name, *sorted(one.labels.items())): one.value
            for family in text_string_to_metric_families(ask_when_open(address, "/metrics")[1])
            for one in family.samples
        }
        duration = ("runledger_job_duration_seconds_count", ("job_type", "work"), ("outcome", "SUCCEEDED"))
        return (
            samples.get(duration) == len(jobs)
            and samples.get(("runledger_job_wait_seconds_count", ("job_type", "work"))) == len(jobs)
            and samples.get(("runledger_jobs_ended_total", ("job_type", "work"), ("status", "SUCCEEDED"))) == len(jobs)
            and samples.get(("runledger_database_up",)) == 1
        )

    until(counted, what="all attempts in the figures")
    assert host.stop() == 0
