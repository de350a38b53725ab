"""The list of worker processes by the command line."""

import psycopg
from acceptance.command_line import document_of, run_command

from runledger import Ledger
from runledger.core.workers import WorkerAnnouncement, WorkerHost, WorkerState
from runledger.postgres.workers import announce_workers

TYPES = '["a", "b", "c", "d", "e", "f"]'


def announce(url: str) -> None:
    worker = WorkerAnnouncement("host-a.0.1", 4_711, WorkerState.IDLE, TYPES, 60.0, None, 7, 51_200)
    with Ledger(url) as ledger, ledger.begin() as connection:
        announce_workers(
            connection, WorkerHost("host-a", "box-1", "shop:catalog", "0.1.0", None), [worker], ttl_seconds=60
        )


def test_a_line_says_where_a_worker_is_what_it_does_and_what_it_serves(own_url: str) -> None:
    announce(own_url)

    [line] = run_command("workers", url=own_url).stdout.splitlines()

    cells = line.split("\t")
    assert cells[:7] == ["host-a.0.1", "box-1", "4711", "IDLE", "", "7", "50"]
    assert cells[-2:] == ["all", "a,b,c,d and 2 more"]


def test_the_document_has_every_type_and_the_next_page(own_url: str) -> None:
    announce(own_url)

    document = document_of(run_command("workers", "--json", "--limit", "1", url=own_url))

    assert document["workers"][0]["job_types"] == ["a", "b", "c", "d", "e", "f"]
    assert document["next_after"] == "host-a.0.1"


def test_a_host_that_is_silent_is_shown_as_lost(own_url: str) -> None:
    announce(own_url)
    with psycopg.connect(own_url, autocommit=True) as connection:
        connection.execute("UPDATE runledger.job_workers SET expires_at = clock_timestamp()")

    assert "LOST" in run_command("workers", url=own_url).stdout
