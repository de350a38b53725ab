"""The preflight: it names what the new code cannot run, says nothing of the rest, and leaves everything as it is."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import pytest
from postgres.conftest import Connect
from postgres.observing import Connection

from runledger import (
    DatabaseUnavailable,
    InvalidRequest,
    JobCatalog,
    JobContext,
    JobRequest,
    PreflightReport,
    PreflightSource,
    ScheduleRequest,
    enqueue_jobs,
    run_preflight,
    set_job_schedule_active,
    upsert_job_schedule,
)
from runledger.database.preflight import PAGE
from runledger.testing.factories import a_definition, a_job, a_leased_job

SHIP, GONE = "order.ship", "order.gone"
SECRET = "4111-1111-1111-1111"


@dataclass
class Order:
    number: int


class Origin(TypedDict):
    schedule_id: str
    schedule_name: str
    scheduled_for: datetime


class Fired(TypedDict):
    number: int
    _schedule: Origin


Check = Callable[..., PreflightReport]


@pytest.fixture
def catalog() -> JobCatalog:
    """The new code: orders have a number."""
    catalog = JobCatalog()

    @catalog.job(SHIP)
    def ship(context: JobContext, payload: Order) -> None:
        raise AssertionError("a preflight calls no handler")

    return catalog


@pytest.fixture
def check(connection: Connection, database_url: str, catalog: JobCatalog) -> Check:
    return lambda **options: run_preflight(database_url, catalog, **options)


def test_what_the_new_code_can_run_is_no_finding(connection: Connection, check: Check) -> None:
    a_job(connection, SHIP, {"number": 1})
    a_job(connection, SHIP, {"number": 2}, delay=3_600)
    upsert_job_schedule(connection, ScheduleRequest("daily", cron="@daily", job_type=SHIP, payload={"number": 3}))

    report = check()

    assert report == PreflightReport(findings=(), jobs=2, schedules=1, is_complete=True)
    assert report.is_clear


def test_an_empty_ledger_is_clear(check: Check) -> None:
    assert check() == PreflightReport(findings=(), jobs=0, schedules=0, is_complete=True)


def test_a_type_without_a_handler_is_counted_with_its_oldest_jobs(connection: Connection, check: Check) -> None:
    jobs = [a_job(connection, GONE, delay=delay) for delay in (None, 60, None, None, 60, None)]

    [finding] = check().findings

    assert (finding.source, finding.job_type, finding.count) == (PreflightSource.JOBS, GONE, 6)
    assert finding.code == "catalog.unknown_job_type"
    assert finding.examples == tuple(str(job.job_id) for job in jobs[:5])


def test_types_of_other_programs_are_no_finding_when_they_are_ignored(connection: Connection, check: Check) -> None:
    a_job(connection, GONE)
    a_job(connection, SHIP, {})

    report = check(ignore_unknown_types=True)

    assert [finding.job_type for finding in report.findings] == [SHIP]
    assert report.jobs == 2


def test_refused_payloads_are_told_apart_by_reason(connection: Connection, check: Check) -> None:
    ready = a_job(connection, SHIP, {})
    a_job(connection, SHIP, {"number": 1})
    later = a_job(connection, SHIP, {}, delay=3_600)
    text = a_job(connection, SHIP, {"number": SECRET})

    report = check()

    missing, wrong = report.findings
    assert (missing.code, missing.message, missing.count) == ("job.invalid_payload", "payload.number is missing", 2)
    assert missing.examples == (str(ready.job_id), str(later.job_id))
    assert (wrong.message, wrong.examples) == ("payload.number must be int", (str(text.job_id),))
    assert SECRET not in repr(report)


def test_a_leased_job_is_looked_at_because_it_may_be_retried(connection: Connection, check: Check) -> None:
    running = a_leased_job(connection, SHIP, {})

    [finding] = check().findings

    assert finding.examples == (running.job_id,)


def test_a_job_that_has_ended_is_not_looked_at(connection: Connection, check: Check) -> None:
    job = a_job(connection, GONE)
    connection.execute("DELETE FROM runledger.job_ready")
    connection.execute(
        "UPDATE runledger.job_queue SET final_status = 'SUCCEEDED', finished_at = now() WHERE id = %s", [job.job_id]
    )

    assert check().is_clear


def test_a_payload_that_nobody_could_enqueue_is_refused_as_it_would_be_at_its_attempt(
    connection: Connection, check: Check, catalog: JobCatalog
) -> None:
    catalog.job("plain.any")(lambda context, payload: None)
    job = a_job(connection, "plain.any")
    deep = "[" * 100 + "]" * 100
    connection.execute("UPDATE runledger.job_queue SET payload = %s::jsonb WHERE id = %s", [deep, job.job_id])

    [finding] = check().findings

    assert finding.code == "job.invalid_payload"


def test_a_payload_type_that_raises_anything_is_a_finding_without_its_text(
    connection: Connection, check: Check, catalog: JobCatalog
) -> None:
    @dataclass
    class Card:
        number: str

        def __post_init__(self) -> None:
            raise LookupError(f"no bank for {self.number}")

    @dataclass
    class Exiting:
        number: str

        def __post_init__(self) -> None:
            sys.exit(f"no bank for {self.number}")

    catalog.job("card.charge")(annotated(Card))
    catalog.job("card.check")(annotated(Exiting))
    for job_type in ("card.charge", "card.check"):
        a_job(connection, job_type, {"number": SECRET})

    report = check()

    raising, exiting = report.findings
    assert (raising.code, raising.message) == ("job.invalid_payload", "payload is refused by Card: LookupError")
    assert exiting.code == "exception.SystemExit"
    assert SECRET not in repr(report)


def annotated(payload_type: type) -> Callable[[JobContext, Any], None]:
    """A handler of this payload type."""

    def handler(context: JobContext, payload: Any) -> None:
        return None

    handler.__annotations__["payload"] = payload_type
    return handler


def test_reasons_without_number_are_counted_together(connection: Connection, check: Check) -> None:
    a_definition(connection, SHIP)
    with connection.transaction():
        enqueue_jobs(connection, [JobRequest(SHIP, {"number": 1, f"extra{number}": 1}) for number in range(30)])

    findings = check().findings

    assert len(findings) == 21
    assert (findings[-1].message, findings[-1].count) == ("refused for other reasons than the first ones", 10)


@pytest.mark.parametrize("jobs", [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
def test_every_job_is_looked_at_once_page_by_page(connection: Connection, check: Check, jobs: int) -> None:
    some_jobs(connection, jobs)

    assert (check().jobs, check().is_complete) == (jobs, True)
    assert (check(max_jobs=max(jobs, 1)).jobs, check(max_jobs=max(jobs, 1)).is_complete) == (jobs, True)


@pytest.mark.parametrize("most", [1, PAGE - 1, PAGE, PAGE + 1])
def test_more_jobs_than_may_be_looked_at_are_no_all_clear(connection: Connection, check: Check, most: int) -> None:
    some_jobs(connection, PAGE + 2)

    report = check(max_jobs=most)

    assert (report.findings, report.jobs, report.is_complete, report.is_clear) == ((), most, False, False)


def some_jobs(connection: Connection, count: int) -> None:
    """Good ones, every second of which waits for its time."""
    a_definition(connection, SHIP)
    requests = [JobRequest(SHIP, {"number": number}, delay=number % 2 * 60) for number in range(count)]
    with connection.transaction():
        enqueue_jobs(connection, requests)


@pytest.mark.parametrize("most", [0, -1, 1.5, True])
def test_a_bound_that_is_none_is_refused(check: Check, most: Any) -> None:
    with pytest.raises(InvalidRequest):
        check(max_jobs=most)


def test_active_schedules_are_judged_by_type_and_payload(connection: Connection, check: Check) -> None:
    for job_type in (SHIP, GONE):
        a_definition(connection, job_type)
    for name, job_type, payload in (("a", GONE, {}), ("b", SHIP, {}), ("c", SHIP, {"number": 1}), ("d", GONE, {})):
        upsert_job_schedule(connection, ScheduleRequest(name, cron="@daily", job_type=job_type, payload=payload))
    set_job_schedule_active(connection, "d", is_active=False)

    report = check()

    assert report.schedules == 3
    assert [(one.source, one.job_type, one.code, one.examples) for one in report.findings] == [
        (PreflightSource.SCHEDULES, GONE, "catalog.unknown_job_type", ("a",)),
        (PreflightSource.SCHEDULES, SHIP, "job.invalid_payload", ("b",)),
    ]


def test_a_schedule_that_the_new_code_stores_anew_is_not_looked_at(
    connection: Connection, check: Check, catalog: JobCatalog
) -> None:
    a_definition(connection, SHIP)
    upsert_job_schedule(connection, ScheduleRequest("daily", cron="@daily", job_type=SHIP, payload={"old": 1}))
    catalog.schedule("daily", cron="@daily", job_type=SHIP, payload={"number": 1})

    assert check() == PreflightReport(findings=(), jobs=0, schedules=0, is_complete=True)


def test_the_payload_of_a_schedule_is_judged_with_what_the_scheduler_adds(
    connection: Connection, check: Check, catalog: JobCatalog
) -> None:
    catalog.job("report.build")(annotated(Fired))
    a_definition(connection, "report.build")
    upsert_job_schedule(
        connection, ScheduleRequest("nightly", cron="@daily", job_type="report.build", payload={"number": 1})
    )

    assert check().is_clear


def test_nothing_changes_and_no_row_is_locked(connection: Connection, connect: Connect, check: Check) -> None:
    job = a_job(connection, SHIP, {"number": 1})
    other = connect(autocommit=False)
    other.execute("SELECT FROM runledger.job_ready WHERE job_id = %s FOR UPDATE", [job.job_id])
    other.execute("SELECT FROM runledger.job_queue WHERE id = %s FOR UPDATE", [job.job_id])
    before = connection.execute("SELECT xmin, * FROM runledger.job_ready").fetchall()

    assert check().is_clear

    assert connection.execute("SELECT xmin, * FROM runledger.job_ready").fetchall() == before


def test_no_transaction_is_open_while_payloads_are_judged(
    connection: Connection, check: Check, catalog: JobCatalog
) -> None:
    states: list[str] = []

    @dataclass
    class Watching:
        def __post_init__(self) -> None:
            query = (
                "SELECT state FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'runledger'"
            )
            states.extend(row[0] for row in connection.execute(query))

    catalog.job("watching")(annotated(Watching))
    a_job(connection, "watching")

    assert check().is_clear
    assert set(states) == {"idle"}


def test_a_page_that_takes_too_long_ends_the_preflight(connection: Connection, connect: Connect, check: Check) -> None:
    holder = connect(autocommit=False)
    holder.execute("LOCK TABLE runledger.job_ready IN ACCESS EXCLUSIVE MODE")

    with pytest.raises(DatabaseUnavailable, match=r"not read within 0\.05 seconds"):
        check(timeout_seconds=0.05)


def test_a_database_that_is_away_is_said_so(catalog: JobCatalog) -> None:
    with pytest.raises(DatabaseUnavailable):
        run_preflight("postgresql://nobody@/none?host=/nonexistent", catalog)
