"""A connection belongs to the process that opened it: on the other side of a fork a link refuses, a ledger opens its
own, and neither disturbs the connection of the parent."""

import os
import warnings
from collections.abc import Callable

from runledger import Ledger
from runledger.core.errors import InternalError
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.listeners import withdraw_listener
from runledger.runtime.link import DatabaseLink

AS_WANTED, OTHERWISE = 0, 1


def test_a_link_is_refused_in_a_forked_process_and_works_on_in_its_own(open_link: Callable[..., DatabaseLink]) -> None:
    link = open_link()
    _use(link)

    def child() -> bool:
        try:
            _use(link)
        except InternalError:
            link.close()
            return True
        return False

    assert _forked(child) == AS_WANTED
    _use(link)


def test_a_ledger_opens_a_connection_of_its_own_in_a_forked_process(database_url: str) -> None:
    with Ledger(database_url, pool_size=1) as ledger:
        ours = _backend_of(ledger)

        assert _forked(lambda: _backend_of(ledger) != ours) == AS_WANTED
        assert _backend_of(ledger) == ours


def _forked(child: Callable[[], bool]) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads that the child does not use
        pid = os.fork()
    if pid == 0:
        status = OTHERWISE
        try:
            status = AS_WANTED if child() else OTHERWISE
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(wait_status)


def _backend_of(ledger: Ledger) -> int:
    with ledger.database.autocommit() as connection:
        assert isinstance(connection, PsycopgConnection)
        return connection.driver.info.backend_pid


def _use(link: DatabaseLink) -> None:
    with link.autocommit() as ledger:
        withdraw_listener(ledger, "nobody")
