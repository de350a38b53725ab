"""Counts of workers, merged, and as Prometheus reads them from a real host."""

from collections.abc import Callable
from uuid import UUID

import pytest
from prometheus_client.parser import text_string_to_metric_families
from runtime.hosts import Desk, Host, until
from runtime.test_health import address, ask_when_open  # noqa: F401 - a fixture

from runledger import JobStatus, Outcome, SettledAttempt
from runledger.postgres.stats import QueueStats
from runledger.runtime.metrics import _bounded_stats
from runledger.runtime.tally import BUCKETS, MOST_TYPES, OTHER, Tally, TallyBoard

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
    durations, waits = board.total()
    assert sum(durations["mail.send", "SUCCEEDED"][:-1]) == 2
    assert durations["mail.send", "SUCCEEDED"][-1] == pytest.approx(0.04)
    assert waits["mail.send",][-1] == pytest.approx(3.0)


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
    durations, _ = board.total()
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
            and samples.get(("runledger_database_up",)) == 1
        )

    until(counted, what="all attempts in the figures")
    assert host.stop() == 0
