"""A call that would stop an event loop is named, once for each line, and nowhere else."""

import asyncio
import subprocess
import sys
import timeit
import warnings
from typing import Any

import psycopg
import pytest

from runledger import BlockingCallWarning, JobRequest, Ledger, enqueue_job
from runledger.core.blocking import MESSAGE, warn_in_event_loop
from runledger.testing.factories import a_definition

Connection = psycopg.Connection[Any]


def enqueue(connection: Connection) -> None:
    enqueue_job(connection, JobRequest("test.job"))


def test_an_enqueue_in_a_coroutine_is_warned_about(runledger_tx: Connection) -> None:
    a_definition(runledger_tx)

    async def view() -> None:
        enqueue(runledger_tx)

    with pytest.warns(BlockingCallWarning) as warned:
        asyncio.run(view())

    assert [str(one.message) for one in warned] == [MESSAGE]
    assert warned[0].filename == __file__
    assert issubclass(BlockingCallWarning, RuntimeWarning)


def test_the_client_of_an_application_is_warned_about_at_the_callers_line(runledger_db: str) -> None:
    async def view(ledger: Ledger) -> None:
        with ledger.begin() as connection:
            a_definition(connection)
        ledger.enqueue("test.job")

    with Ledger(runledger_db) as ledger, pytest.warns(BlockingCallWarning) as warned:
        asyncio.run(view(ledger))

    assert {one.filename for one in warned} == {__file__}


def test_a_line_is_warned_about_once(runledger_tx: Connection) -> None:
    a_definition(runledger_tx)

    async def view() -> None:
        for _ in range(3):
            enqueue(runledger_tx)

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        asyncio.run(view())

    assert len(warned) == 1


def test_threads_of_an_event_loop_are_fine(runledger_tx: Connection) -> None:
    a_definition(runledger_tx)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        enqueue(runledger_tx)
        asyncio.run(asyncio.to_thread(enqueue, runledger_tx))


def test_it_costs_less_than_a_microsecond_beside_a_call_of_a_millisecond() -> None:
    seconds = min(timeit.repeat(warn_in_event_loop, number=10_000, repeat=5)) / 10_000

    assert seconds < 20e-6  # a tenth of a microsecond on an idle machine


def test_it_does_not_import_asyncio() -> None:
    code = (
        "from runledger.core.blocking import warn_in_event_loop as w; w(); import sys; print('asyncio' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).stdout.strip() == b"False"
