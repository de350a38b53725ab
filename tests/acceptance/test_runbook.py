"""Every command of the runbook runs, on a ledger that has one of everything."""

import re
import shlex

import pytest
from acceptance.command_line import REPOSITORY, enqueued, run_command

from runledger import Ledger, ScheduleRequest, WorkflowDagBuilder, upsert_job_schedule

PAGE = (REPOSITORY / "docs" / "operations" / "runbook.md").read_text()
BLOCK = re.compile(r"^```console\n(.*?)^```", re.S | re.M)
COMMANDS = list(dict.fromkeys(line for block in BLOCK.findall(PAGE) for line in block.splitlines()))
TYPE = "mail.receipt"


@pytest.fixture
def names(own_url: str) -> dict[str, str]:
    """What the variables of the page stand for."""
    job_id = enqueued(own_url, TYPE)
    schedule = ScheduleRequest("nightly", cron="0 3 * * *", job_type=TYPE)
    run = WorkflowDagBuilder("shop").job("ship", TYPE).external("approve").after_success("approve", ["ship"]).build()
    with Ledger(own_url) as ledger:
        with ledger.begin() as connection:
            upsert_job_schedule(connection, schedule)
        run_id = str(ledger.enqueue_workflow_run(run).run_id)
    return {"$JOB": job_id, "$TYPE": TYPE, "$RUN": run_id}


def test_the_page_has_commands_for_every_symptom() -> None:
    assert len(BLOCK.findall(PAGE)) == PAGE.count("\n## ")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_runbook_runs(own_url: str, names: dict[str, str], command: str) -> None:
    program, *arguments = [names.get(word, word) for word in shlex.split(command)]

    result = run_command(*arguments, url=own_url)

    assert program == "runledger"
    assert result.exit_code in ((0, 3) if arguments[0] == "doctor" else (0,)), result.stderr
    assert result.stdout or arguments[0] in ("workers", "dead") or arguments[1] == "attempts"
