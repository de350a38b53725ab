"""What Sentry receives of real attempts, through a transport that keeps it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from runtime.benches import Bench

from runledger import JobCatalog, JobContext, JobFailure, JobRequest, Snooze, enqueue_job
from runledger.contrib.sentry import Sentry

MakeBench = Callable[..., Bench]


class Kept(sentry_sdk.transport.Transport):
    """A transport that sends nothing."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.flushes = 0

    def capture_envelope(self, envelope: Any) -> None:
        self.items += [(item.type, item.payload.json) for item in envelope.items]

    def flush(self, timeout: float, callback: Any = None) -> None:
        self.flushes += 1

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [item for found, item in self.items if found == kind]


@pytest.fixture
def kept() -> Iterator[Kept]:
    transport = Kept()
    sentry_sdk.init(
        dsn="http://key@localhost/1", transport=transport, traces_sample_rate=1.0, default_integrations=False
    )
    yield transport
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.init()


def bench_of(make_bench: MakeBench, handler: Any, **options: Any) -> Bench:
    catalog = JobCatalog()
    catalog.job("mail.send")(handler)
    catalog.use(Sentry(**options))
    return make_bench(catalog)


def failing(context: JobContext, payload: Any) -> None:
    sentry_sdk.set_tag("leak", "yes")
    raise ValueError(f"broken {context.attempt}")


def test_an_attempt_is_a_transaction_with_queue_data(make_bench: MakeBench, kept: Kept) -> None:
    job_id = bench_of(make_bench, lambda context, payload: None).run("mail.send")
    [transaction] = kept.of_type("transaction")
    traced = transaction["contexts"]["trace"]
    assert (transaction["transaction"], traced["op"], traced["status"]) == ("mail.send", "queue.process", "ok")
    assert traced["data"]["messaging.message.id"] == job_id
    assert traced["data"]["messaging.message.retry.count"] == 0
    assert transaction["tags"]["job_type"] == "mail.send"


@pytest.mark.parametrize(("every", "reported"), [(False, ["broken 2"]), (True, ["broken 1", "broken 2"])])
def test_only_the_final_failure_is_reported_by_default(
    make_bench: MakeBench, kept: Kept, every: bool, reported: list[str]
) -> None:
    def handler(context: JobContext, payload: Any) -> None:
        try:
            failing(context, payload)
        except ValueError as error:
            raise JobFailure.retryable("mail.busy", str(error), retry_after=0) from error

    bench = bench_of(make_bench, handler, reports_every_failure=every)
    job_id = bench.enqueue("mail.send", max_attempts=2)
    bench.work()
    bench.connection.execute("UPDATE runledger.job_scheduled SET next_run_at = now()")
    bench.connection.execute(
        "WITH due AS (DELETE FROM runledger.job_scheduled RETURNING *) "
        "INSERT INTO runledger.job_ready SELECT * FROM due"
    )
    bench.work()
    events = kept.of_type("event")
    assert [event["exception"]["values"][0]["value"] for event in events] == reported
    assert {event["tags"]["job_id"] for event in events} == {job_id}


def test_a_terminal_failure_is_reported_at_once_and_once(make_bench: MakeBench, kept: Kept) -> None:
    def handler(context: JobContext, payload: Any) -> None:
        raise JobFailure.terminal("mail.no_address", "no address")

    bench_of(make_bench, handler).run("mail.send")
    assert len(kept.of_type("event")) == 1


def test_a_snooze_is_no_error(make_bench: MakeBench, kept: Kept) -> None:
    def handler(context: JobContext, payload: Any) -> None:
        raise Snooze(60)

    bench_of(make_bench, handler).run("mail.send", max_attempts=1)
    assert kept.of_type("event") == []


def test_a_failure_outside_the_handler_is_reported_when_it_is_final(make_bench: MakeBench, kept: Kept) -> None:
    bench_of(make_bench, lambda context, payload: object()).run("mail.send")
    [event] = kept.of_type("event")
    assert event["message"].startswith("mail.send: ")


def test_what_one_attempt_sets_does_not_reach_the_next(make_bench: MakeBench, kept: Kept) -> None:
    bench = bench_of(make_bench, failing)
    bench.run("mail.send", max_attempts=1)
    bench.run("mail.send", max_attempts=1)
    first, second = kept.of_type("event")
    assert first["tags"]["job_id"] != second["tags"]["job_id"]
    assert "leak" not in sentry_sdk.get_isolation_scope()._tags


def test_a_job_enqueued_within_a_trace_belongs_to_it(make_bench: MakeBench, kept: Kept) -> None:
    bench = bench_of(make_bench, lambda context, payload: None)
    with sentry_sdk.start_transaction(name="request") as transaction:
        enqueue_job(bench.connection, bench.catalog.request("mail.send"))
    bench.work()
    traces = {one["transaction"]: one["contexts"]["trace"]["trace_id"] for one in kept.of_type("transaction")}
    assert traces == {"request": transaction.trace_id, "mail.send": transaction.trace_id}


@pytest.mark.parametrize(("ending", "status"), [(None, "ok"), (JobFailure.terminal("a.b", "c"), "error")])
def test_a_job_of_a_schedule_checks_in_when_it_has_ended(
    make_bench: MakeBench, kept: Kept, ending: Any, status: str
) -> None:
    def handler(context: JobContext, payload: Any) -> None:
        if ending:
            raise ending

    bench = bench_of(make_bench, handler)
    bench.run("mail.send", headers={"schedule": "nightly"})
    bench.run("mail.send")
    [check_in] = kept.of_type("check_in")
    assert (check_in["monitor_slug"], check_in["status"]) == ("nightly", status)


def test_a_worker_that_ends_sends_what_is_left(make_bench: MakeBench, kept: Kept) -> None:
    bench = bench_of(make_bench, lambda context, payload: None)
    enqueue_job(bench.connection, JobRequest("mail.send"))
    bench.work()
    bench.worker.end()
    assert kept.flushes == 1
