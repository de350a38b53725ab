"""Log records of a handler name their job, with the standard library and with structlog."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from runtime.benches import Bench

from runledger import JobCatalog, JobContext
from runledger.contrib.logs import FIELDS, JobLogContext, JobLogFilter, add_job, current_job

MakeBench = Callable[..., Bench]
logger = logging.getLogger("shop.mail")


def bench_of(make_bench: MakeBench, handler: Callable[[JobContext, Any], Any]) -> Bench:
    catalog = JobCatalog()
    catalog.use(JobLogContext())
    catalog.job("mail.send")(handler)
    return make_bench(catalog)


@pytest.fixture
def records() -> Any:
    """What a handler of the library's user receives, filtered."""
    received: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = received.append  # type: ignore[method-assign]
    handler.addFilter(JobLogFilter())
    logger.addHandler(handler)
    yield received
    logger.removeHandler(handler)


def test_records_of_a_handler_name_its_job_and_others_do_not(make_bench: MakeBench, records: Any) -> None:
    bench = bench_of(make_bench, lambda context, payload: logger.warning("sending"))
    job_id = bench.run("mail.send")
    logger.warning("outside")
    inside, outside = records
    assert (inside.job_id, inside.job_type, inside.attempt, inside.run_number) == (job_id, "mail.send", 1, 1)
    assert (inside.worker_id, inside.workflow_run_id) == ("test.0.1", None)
    assert [getattr(outside, name) for name in FIELDS] == [None] * len(FIELDS)


def test_a_failed_attempt_leaves_nothing_behind(make_bench: MakeBench) -> None:
    def handler(context: JobContext, payload: Any) -> None:
        raise SystemExit

    bench_of(make_bench, handler).run("mail.send")
    assert current_job() == {}


def test_attributes_of_the_record_itself_win(make_bench: MakeBench, records: Any) -> None:
    bench_of(make_bench, lambda context, payload: logger.warning("x", extra={"job_id": "mine"})).run("mail.send")
    assert records[0].job_id == "mine"


def test_events_of_structlog_name_their_job(make_bench: MakeBench) -> None:
    import structlog

    output = structlog.testing.LogCapture()
    log = structlog.wrap_logger(None, processors=[add_job, output])
    job_id = bench_of(make_bench, lambda context, payload: log.info("sending")).run("mail.send")
    log.info("outside")
    inside, outside = output.entries
    assert (inside["job_id"], inside["event"], "workflow_run_id" in inside) == (job_id, "sending", False)
    assert "job_id" not in outside


def test_importing_and_using_it_leaves_the_root_logger_alone(make_bench: MakeBench) -> None:
    before = (list(logging.root.handlers), list(logging.root.filters), logging.root.level)
    bench_of(make_bench, lambda context, payload: None).run("mail.send")
    assert (logging.root.handlers, logging.root.filters, logging.root.level) == before
