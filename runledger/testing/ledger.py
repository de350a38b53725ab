"""The ledger that a test gets: an application's own, with what only tests may do."""

from collections.abc import Callable, Sequence

from runledger.catalog import JobCatalog
from runledger.core.jobs import Job, JsonValue
from runledger.database.ledger import Ledger
from runledger.testing.assertions import assert_enqueued
from runledger.testing.draining import Drained, drain
from runledger.testing.faults import Fault
from runledger.testing.travel import travel


class LedgerForTests(Ledger):
    """A ``Ledger`` over a test database. ``url`` is the database's."""

    def __init__(self, url: str, *, schema: str | None = None) -> None:
        super().__init__(url, schema=schema, pool_size=4)
        self.url = url

    def sync(self, catalog: JobCatalog, *, schedules: bool = False) -> None:
        """The catalog's definitions are stored, and with ``schedules`` those too, as a worker stores both when it
        starts. Schedules are left out unless asked for: a test that lets minutes pass just before a slot would find a
        job more than at any other hour."""
        with self.begin() as connection:
            catalog.sync_definitions(connection)
            if schedules:
                catalog.sync_schedules(connection)

    def drain(
        self,
        catalog: JobCatalog,
        *,
        max_jobs: int | None = None,
        until: Callable[[], bool] | None = None,
        queues: Sequence[str] | None = None,
        fault: Fault | None = None,
    ) -> Drained:
        """Due jobs have run, here and through the real worker; see ``runledger.testing.drain``."""
        return drain(
            self.url,
            catalog,
            schema=self.database.schema,
            max_jobs=max_jobs,
            until=until,
            queues=queues,
            fault=fault,
        )

    def travel(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """This much time has passed; see ``runledger.testing.travel``."""
        with self.begin() as connection:
            travel(connection, days=days, hours=hours, minutes=minutes, seconds=seconds)

    def assert_enqueued(
        self, job_type: str, *, payload_contains: JsonValue = None, count: int | None = None
    ) -> list[Job]:
        """The matching jobs; see ``runledger.testing.assert_enqueued``."""
        with self.begin() as connection:
            return assert_enqueued(connection, job_type, payload_contains=payload_contains, count=count)
