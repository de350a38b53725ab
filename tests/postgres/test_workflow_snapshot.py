"""The canonical form of an enqueued request, as stored: what a retry of next year is compared with.

The file changes only together with a reason why no stored snapshot breaks. RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it.
"""

import json
import os
from pathlib import Path

from postgres.observing import scalar
from postgres.workflow_graphs import TYPE, a_workflow, enqueue

from runledger.core.states import JobStage, ReleaseMode
from runledger.core.workflows import StepDependency, StepRequest, output_of

GOLDEN = Path(__file__).parent / "golden" / "workflow_request.json"
ORGANIZATION = "0192f5aa-0000-7000-8000-000000000001"


def test_the_stored_snapshot_is_the_golden_one(connection) -> None:
    builder = (
        a_workflow(connection, metadata={"source": "api", "n": 1.5}, organization_id=ORGANIZATION)
        .idempotency_key("golden")
        .active_key("doc-42")
        .job("publish", TYPE, {"by": output_of("approve", "by"), "first": [output_of("crawl", "pages", 0)]})
        .job("crawl", TYPE, {"url": "https://example.org/ü"}, priority=-3, max_attempts=7, timeout_seconds=60)
        .external("approve", {"question": None})
        .step(
            StepRequest(
                "tidy",
                TYPE,
                stage=JobStage.SCHEDULED,
                dependencies=[StepDependency("publish"), StepDependency("approve", ReleaseMode.ON_SUCCESS)],
            )
        )
        .after_success("publish", ["crawl", "approve"])
        .result_step("publish")
    )
    enqueue(connection, builder)

    stored = scalar(connection, "SELECT enqueue_request FROM runledger.workflow_runs")

    if os.environ.get("RUNLEDGER_UPDATE_SNAPSHOTS"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(stored, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    assert stored == json.loads(GOLDEN.read_text())
