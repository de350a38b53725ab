"""``runledger workflow``: list, show, draw, cancel, complete a gate."""

import json

import pytest
from acceptance.command_line import document_of, run_command

from runledger import JobCatalog, Ledger, WorkflowRunStatus
from runledger.core import workflow_errors as errors

catalog = JobCatalog()
catalog.job("doc.crawl")(lambda context, payload: None)


@pytest.fixture
def run_id(own_url: str) -> str:
    builder = catalog.workflow("ingest", metadata={"source": "api"}).job("crawl", "doc.crawl").external('ap"prove')
    builder.after_terminal('ap"prove', ["crawl"]).external("now").job("store", "doc.crawl")
    builder.after_success("store", ["now"])
    with Ledger(own_url) as ledger:
        with ledger.begin() as connection:
            catalog.sync_definitions(connection)
        return str(ledger.enqueue_workflow_run(builder.build()).run_id)


def test_runs_are_listed(own_url: str, run_id: str) -> None:
    result = run_command("workflow", "list", "--type", "ING", "--status", "running", url=own_url)

    assert result.stdout.split("\t")[:4] == [run_id, "ingest", "RUNNING", "0/4"]
    assert document_of(run_command("workflow", "list", "--json", url=own_url))["runs"][0]["run_id"] == run_id
    assert run_command("workflow", "list", "--type", "other", url=own_url).stdout == ""


def test_a_run_is_shown_with_its_steps_and_open_gates(own_url: str, run_id: str) -> None:
    result = run_command("workflow", "show", run_id, url=own_url)

    assert "open gates\tnow" in result.stdout
    assert "crawl\tENQUEUED\tdoc.crawl" in result.stdout
    assert "store\tBLOCKED\tdoc.crawl\t\tnow\t" in result.stdout
    document = document_of(run_command("workflow", "show", run_id, "--json", url=own_url))
    assert [step["step_key"] for step in document["steps"]] == ["crawl", 'ap"prove', "now", "store"]


def test_a_run_is_drawn_in_four_ways(own_url: str, run_id: str) -> None:
    def drawn(form: str) -> str:
        return run_command("workflow", "graph", run_id, "--format", form, url=own_url).stdout

    assert 'ap"prove  BLOCKED  <- crawl?' in drawn("text")
    assert "store     BLOCKED  <- now" in drawn("text")
    assert 's1{"ap#quot;prove<br/>BLOCKED"}:::BLOCKED' in drawn("mermaid")
    assert "s0 -.-> s1" in drawn("mermaid")
    assert 's1 [label="ap\\"prove\\nBLOCKED", shape=diamond' in drawn("dot")
    assert "s2 -> s3 [style=solid];" in drawn("dot")
    edges = json.loads(drawn("json"))["edges"]
    assert {"prerequisite": "crawl", "dependent": 'ap"prove', "release_mode": "ON_TERMINAL"} in edges


def test_a_gate_is_completed_once(own_url: str, run_id: str) -> None:
    def complete(*options: str, step: str = "now") -> tuple[int, str]:
        result = run_command("workflow", "complete-step", run_id, step, *options, url=own_url)
        return result.exit_code, result.stderr + result.stdout

    assert complete("--output", '{"by": "ada"}')[0] == 0
    code, text = complete("--output", '{"by": "ada"}')
    assert (code, "store\tENQUEUED" in text) == (0, True)
    code, text = complete("--status", "failed")
    assert (code, "was already completed" in text) == (5, True)
    assert complete(step='ap"prove')[0] == 5
    assert complete(step="nowhere")[0] == 4
    code, text = complete("--status", "failed", "--output", "1")
    assert (code, "only a gate that succeeds" in text) == (2, True)
    code, text = complete("--status", "failed", "--output", "1", "--json")
    assert json.loads(text)["error"]["code"] == errors.ExternalStepOutputInvalidStatus.code
    assert complete("--code", "x")[0] == 2


def test_a_run_is_cancelled(own_url: str, run_id: str) -> None:
    result = run_command("workflow", "cancel", run_id, "--reason", "wrong document", url=own_url)

    assert result.exit_code == 0
    assert "reason\twrong document" in result.stdout
    with Ledger(own_url) as ledger:
        assert ledger.get_workflow_run(run_id).status is WorkflowRunStatus.CANCELED
    again = run_command("workflow", "cancel", run_id, url=own_url)
    assert (again.exit_code, "already ended" in again.stderr) == (0, True)


def test_a_run_and_a_step_are_explained(own_url: str, run_id: str) -> None:
    step = run_command("workflow", "explain", run_id, "store", url=own_url)
    run = document_of(run_command("workflow", "explain", run_id, "--json", url=own_url))

    assert step.stdout.splitlines() == [
        "step 'store' is BLOCKED: 1 edge is not satisfied, because gate 'now' is open and waits for its completion",
        "now\tWAITING_FOR_EXTERNAL\tON_SUCCESS",
        "now\tWAITING_FOR_EXTERNAL\t(gate)\t\t\t",
    ]
    assert [cause["step_key"] for cause in run["explanation"]["root_causes"]] == ["now", "crawl"]
    assert run_command("workflow", "explain", run_id, "nowhere", url=own_url).exit_code == 4


def test_a_cancelled_run_is_run_again(own_url: str, run_id: str) -> None:
    def rerun(*options: str) -> tuple[int, str, str]:
        result = run_command("workflow", "rerun", run_id, *options, url=own_url)
        return result.exit_code, result.stdout, result.stderr

    assert rerun()[0] == 5
    run_command("workflow", "cancel", run_id, url=own_url)
    code, text, talk = rerun("--reason", "right document")

    assert (code, f"re-run of\t{run_id}" in text, "reason\tright document" in text) == (0, True, True)
    assert talk.startswith("target: ")
    code, again, talk = rerun("--json")
    assert (code, talk, json.loads(again)["run"]["rerun_of_run_id"]) == (0, "", run_id)
    assert json.loads(again)["run"]["run_id"] in text
    assert rerun("--reason", " ")[0] == 2


def test_a_run_that_is_not_there_is_not_found(own_url: str) -> None:
    for command in ("show", "graph", "explain", "cancel", "rerun"):
        assert run_command("workflow", command, "no-uuid", url=own_url).exit_code == 4
