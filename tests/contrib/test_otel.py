"""Spans and durations of real enqueues and a real worker, as the SDK exports them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from runtime.benches import Bench

from runledger import (
    JobCatalog,
    JobContext,
    JobFailure,
    JobTimeout,
    Snooze,
    enqueue_jobs,
    enqueue_workflow_run,
    use_for_enqueues,
)
from runledger.contrib import otel
from runledger.core.middleware import no_longer_for_enqueues

MakeBench = Callable[..., Bench]


class Telemetry:
    """An SDK that exports into memory, and a worker's bench that uses it."""

    def __init__(self, make_bench: MakeBench, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        meters = MeterProvider([self.reader])
        self.middleware = otel.OpenTelemetry(tracer_provider=self.tracers, meter_provider=meters, **options)
        self.catalog = JobCatalog()
        self.catalog.use(self.middleware)
        self.catalog.job("mail.send")(self._handle)
        self.inside: list[Any] = []
        self.ending: BaseException | None = None
        self.bench = make_bench(self.catalog)

    def _handle(self, context: JobContext, payload: Any) -> None:
        self.inside.append(trace.get_current_span().get_span_context())
        if self.ending is not None:
            raise self.ending

    def spans(self, prefix: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(prefix)]

    def run(self, count: int = 1) -> None:
        with self.bench.connection.transaction():
            enqueue_jobs(self.bench.connection, [self.catalog.request("mail.send") for _ in range(count)])
        self.bench.work()


@pytest.fixture
def telemetry(make_bench: MakeBench) -> Telemetry:
    return Telemetry(make_bench)


def test_an_attempt_is_a_trace_of_its_own_with_a_link_to_its_enqueue(telemetry: Telemetry) -> None:
    telemetry.run()
    [sent], [processed] = telemetry.spans("send mail.send"), telemetry.spans("process mail.send")
    assert sent.kind is trace.SpanKind.PRODUCER
    assert processed.kind is trace.SpanKind.CONSUMER
    assert [link.context.span_id for link in processed.links] == [sent.context.span_id]
    assert processed.parent is None
    assert processed.context.trace_id != sent.context.trace_id
    assert telemetry.inside == [processed.context]
    assert processed.status.is_ok or processed.status.is_unset


def test_attributes_follow_the_conventions_for_messaging(telemetry: Telemetry) -> None:
    telemetry.run()
    [processed] = telemetry.spans("process")
    attributes = dict(processed.attributes)
    assert attributes.pop("messaging.message.id") == telemetry.bench.scalar("SELECT id::text FROM runledger.job_queue")
    assert attributes == {
        "messaging.system": "runledger",
        "messaging.destination.name": "mail.send",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "runledger.job.attempt": 1,
        "runledger.job.run_number": 1,
    }


def test_a_batch_is_one_span_to_which_all_its_attempts_are_linked(telemetry: Telemetry) -> None:
    telemetry.run(3)
    [sent] = telemetry.spans("send")
    assert sent.attributes["messaging.batch.message_count"] == 3
    links = {link.context.span_id for span in telemetry.spans("process") for link in span.links}
    assert (len(telemetry.spans("process")), links) == (3, {sent.context.span_id})


def test_an_attempt_may_belong_to_the_trace_of_its_enqueue(make_bench: MakeBench) -> None:
    telemetry = Telemetry(make_bench, is_child=True)
    telemetry.run()
    [sent], [processed] = telemetry.spans("send"), telemetry.spans("process")
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == sent.context.trace_id


def test_the_span_of_an_enqueue_belongs_to_the_trace_of_its_caller(telemetry: Telemetry) -> None:
    with telemetry.tracers.get_tracer("test").start_as_current_span("request") as request:
        telemetry.run()
    [sent] = telemetry.spans("send")
    assert sent.parent.span_id == request.get_span_context().span_id


@pytest.mark.parametrize(
    ("ending", "error_type"),
    [
        (JobFailure.retryable("mail.busy", "x"), "mail.busy"),
        (ValueError("x"), "ValueError"),
        (JobTimeout(), "JobTimeout"),
    ],
)
def test_a_failed_attempt_has_its_exception_and_an_error_status(
    telemetry: Telemetry, ending: BaseException, error_type: str
) -> None:
    telemetry.ending = ending
    telemetry.run()
    [processed] = telemetry.spans("process")
    assert processed.status.status_code is trace.StatusCode.ERROR
    assert processed.attributes["error.type"] == error_type
    assert [event.name for event in processed.events] == ["exception"]


def test_a_snooze_is_no_error(telemetry: Telemetry) -> None:
    telemetry.ending = Snooze(60)
    telemetry.run()
    [processed] = telemetry.spans("process")
    assert processed.status.is_unset
    assert processed.events == ()


def test_durations_are_recorded_by_type_and_error(telemetry: Telemetry) -> None:
    telemetry.run(2)
    telemetry.ending = ValueError("x")
    telemetry.run()
    data = telemetry.reader.get_metrics_data()
    [metric] = data.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, metric.unit) == ("messaging.process.duration", "s")
    counts = {point.attributes.get("error.type"): point.count for point in metric.data.data_points}
    assert counts == {None: 2, "ValueError": 1}


def test_a_job_that_nobody_traced_has_no_link(telemetry: Telemetry) -> None:
    telemetry.bench.run("mail.send", headers={"traceparent": "nonsense"})
    [processed] = telemetry.spans("process")
    assert processed.links == ()


def test_the_attempts_of_steps_are_linked_to_the_span_of_their_run(telemetry: Telemetry) -> None:
    builder = telemetry.catalog.workflow("newsletter").job("first", "mail.send").job("last", "mail.send")
    with telemetry.bench.connection.transaction():
        request = builder.after_success("last", ["first"]).external("gate").build()
        run_id = enqueue_workflow_run(telemetry.bench.connection, request).run_id
    telemetry.bench.work()
    [sent], processed = telemetry.spans("send"), telemetry.spans("process")
    assert (sent.name, sent.kind) == ("send newsletter", trace.SpanKind.PRODUCER)
    assert sent.attributes["runledger.workflow.type"] == "newsletter"
    assert sent.attributes["messaging.batch.message_count"] == 2
    assert [span.attributes["runledger.workflow.step_key"] for span in processed] == ["first", "last"]
    assert {span.attributes["messaging.message.conversation_id"] for span in processed} == {str(run_id)}
    assert [link.context.span_id for span in processed for link in span.links] == [sent.context.span_id] * 2


@pytest.fixture
def for_enqueues(telemetry: Telemetry) -> Iterator[None]:
    use_for_enqueues(telemetry.middleware)
    yield
    no_longer_for_enqueues(telemetry.middleware)


def test_every_enqueue_of_a_process_can_be_traced(telemetry: Telemetry, for_enqueues: None) -> None:
    telemetry.bench.run("mail.send")
    telemetry.run()  # through the catalog, which uses the same middleware
    assert len(telemetry.spans("send")) == 2
