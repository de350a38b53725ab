"""A connection belongs to the process that opened it: on the other side of a fork a link refuses, a ledger opens its
own, and neither disturbs the connection of the parent. And whoever listens leaves nothing locked."""

import gc
import threading
from collections.abc import Callable

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from runtime.forks import AS_WANTED, forked

from runledger import Ledger
from runledger.core.errors import InternalError
from runledger.postgres.connection import PsycopgConnection
from runledger.postgres.expressions import WAKE_CHANNEL
from runledger.postgres.listeners import withdraw_listener
from runledger.runtime.link import DatabaseLink

LONGEST_LISTEN_SECONDS = 10.0


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

    assert forked(child) == AS_WANTED
    _use(link)


def test_a_ledger_opens_a_connection_of_its_own_in_a_forked_process(database_url: str) -> None:
    with Ledger(database_url, pool_size=1) as ledger:
        ours = _backend_of(ledger)

        assert forked(lambda: _backend_of(ledger) != ours) == AS_WANTED
        assert _backend_of(ledger) == ours


def test_a_process_that_listens_by_way_of_a_second_host_uses_its_connection_afterwards(database_url: str) -> None:
    """The first host of the URL refuses, so the driver keeps an error whose frames reach into ours until the collector
    comes by; nothing that they hold may lock the connection."""
    first = conninfo_to_dict(database_url)
    places = {"host": f"/nowhere,{first.get('host')}", "port": f"5432,{first.get('port')}"}
    link = DatabaseLink(make_conninfo(database_url, **places), "runledger", "keeper")
    done: list[bool] = []

    def listen() -> None:
        done.append(link.listen(WAKE_CHANNEL))
        done.append(link.take_notifications() == [])

    gc.disable()
    try:
        user = threading.Thread(target=listen, daemon=True)
        user.start()
        user.join(LONGEST_LISTEN_SECONDS)
    finally:
        gc.enable()

    assert done == [True, True]
    link.close()


def _backend_of(ledger: Ledger) -> int:
    with ledger.database.autocommit() as connection:
        assert isinstance(connection, PsycopgConnection)
        return connection.driver.info.backend_pid


def _use(link: DatabaseLink) -> None:
    with link.autocommit() as ledger:
        withdraw_listener(ledger, "nobody")
