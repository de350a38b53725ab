"""Wake-ups: a host says that it listens, and enqueue notifies only while some host does (see ``expressions``)."""

from sqlalchemy import Text, delete
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import CLOCK, parameter, seconds
from runledger.postgres.statements import Statement
from runledger.postgres.tables import job_listeners

_announced = upsert(job_listeners).values(
    host_id=parameter("host_id", Text), listening_until=CLOCK + seconds("listen_seconds")
)
ANNOUNCE_LISTENER = Statement(
    "announce_listener",
    _announced.on_conflict_do_update(
        index_elements=["host_id"], set_={"listening_until": _announced.excluded.listening_until}
    ),
)
WITHDRAW_LISTENER = Statement(
    "withdraw_listener", delete(job_listeners).where(job_listeners.c.host_id == parameter("host_id", Text))
)


def announce_listener(connection: AnyConnection, host_id: str, *, listen_seconds: float) -> None:
    """Until ``listen_seconds`` from now, every enqueue that commits wakes this host."""
    borrow(connection).fetch(ANNOUNCE_LISTENER, {"host_id": host_id, "listen_seconds": listen_seconds})


def withdraw_listener(connection: AnyConnection, host_id: str) -> None:
    """This host is busy and looks for itself; nobody notifies for its sake."""
    borrow(connection).fetch(WITHDRAW_LISTENER, {"host_id": host_id})
