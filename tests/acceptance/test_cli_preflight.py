"""The preflight by the command line, as a deploy pipeline runs it."""

import json
import sys
from pathlib import Path

import pytest
from acceptance.command_line import APP, document_of, enqueued, run_command

from runledger import Ledger
from runledger.testing.factories import a_job

NEW_CODE = """
from dataclasses import dataclass
from runledger import JobCatalog

@dataclass
class Order:
    number: int
    country: str

catalog = JobCatalog()

@catalog.job("order.ship")
def ship_order(context, payload: Order):
    return payload.number
"""


@pytest.fixture
def new_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The shop's next release: without receipts, and an order has a country."""
    (tmp_path / "next_shop.py").write_text(NEW_CODE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "next_shop", raising=False)
    return "next_shop:catalog"


def test_the_code_that_enqueued_the_jobs_can_run_them(own_url: str) -> None:
    enqueued(own_url, "mail.receipt", '{"order": 7}')

    result = run_command("preflight", "--app", APP, url=own_url)

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "looked at jobs: 1, schedules: 0\n"


def test_what_the_next_release_cannot_run_ends_with_three(own_url: str, new_app: str) -> None:
    receipt = enqueued(own_url, "mail.receipt", '{"order": 7}')
    order = enqueued(own_url, "order.ship", '{"number": 7}')

    result = run_command("preflight", "--app", new_app, url=own_url)

    assert result.exit_code == 3
    assert [line.split("\t") for line in result.stdout.splitlines()] == [
        ["JOBS", "mail.receipt", "1", "catalog.unknown_job_type", "the catalog has no job of this type", receipt],
        ["JOBS", "order.ship", "1", "job.invalid_payload", "payload.country is missing", order],
    ]


def test_the_types_of_other_programs_can_be_ignored(own_url: str, new_app: str) -> None:
    enqueued(own_url, "mail.receipt", '{"order": 7}')

    document = document_of(run_command("preflight", "--app", new_app, "--ignore-unknown-types", "--json", url=own_url))

    assert document == {"is_clear": True, "is_complete": True, "jobs": 1, "schedules": 0, "findings": []}


def test_the_document_names_every_finding(own_url: str, new_app: str) -> None:
    order = enqueued(own_url, "order.ship", '{"number": 7}')

    result = run_command("preflight", "--app", new_app, "--json", url=own_url)

    assert result.exit_code == 3
    assert json.loads(result.stdout)["findings"] == [
        {
            "source": "JOBS",
            "job_type": "order.ship",
            "code": "job.invalid_payload",
            "message": "payload.country is missing",
            "count": 1,
            "examples": [order],
        }
    ]


def test_more_jobs_than_were_looked_at_are_no_all_clear(own_url: str) -> None:
    with Ledger(own_url) as ledger, ledger.begin() as connection:
        for number in range(3):
            a_job(connection, "order.ship", {"number": number})

    result = run_command("preflight", "--app", APP, "--max-jobs", "2", "--quiet", url=own_url)

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "Error: not all was looked at (hint: raise --max-jobs)\n"
    assert run_command("preflight", "--app", APP, "--max-jobs", "3", url=own_url).exit_code == 0


def test_a_preflight_needs_an_app_and_a_schema(own_url: str, empty_url: str) -> None:
    assert run_command("preflight", url=own_url).exit_code == 2
    assert run_command("preflight", "--app", APP, "--max-jobs", "0", url=own_url).exit_code == 2
    assert run_command("preflight", "--app", "acceptance.absent:catalog", url=own_url).exit_code == 78
    assert run_command("preflight", "--app", APP, url=empty_url).exit_code == 78
