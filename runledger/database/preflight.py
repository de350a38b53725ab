"""The preflight: what waits in the database against the catalog of the new code, before the workers are replaced.

Each page is a short read-only transaction, and none is open while the application's payload types run.
"""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from runledger.core.catalog import JobCatalog
from runledger.core.errors import DatabaseUnavailable, LockNotAvailable, QueryFailed
from runledger.core.limits import check_integer
from runledger.core.preflight import Preflight, PreflightReport, PreflightSource, StoredPayload
from runledger.core.schedules import encode_schedule
from runledger.database.database import Database, only_read
from runledger.postgres.preflight import list_live_payloads, list_scheduled_payloads

PAGE: Final = 250
"""A payload has at most a quarter of a megabyte, as long as nobody stored one past the gate."""

MOST_JOBS: Final = 100_000
LARGEST_MOST_JOBS: Final = 1_000_000_000
MOST_SCHEDULES: Final = 100_000
TIMEOUT_SECONDS: Final = 30.0

Read: TypeAlias = Callable[..., list[StoredPayload]]


def run_preflight(
    database: Database | str,
    catalog: JobCatalog,
    *,
    schema: str | None = None,
    max_jobs: int = MOST_JOBS,
    ignore_unknown_types: bool = False,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> PreflightReport:
    """What waits in the database and ``catalog`` cannot run: jobs that wait or are leased, of which the oldest
    ``max_jobs`` are looked at, and active schedules. Nothing is written and no row is locked.

    A schedule that the catalog has too is not looked at: a starting worker stores it anew. Steps of workflow runs are
    looked at once they have their job. What is enqueued or requeued meanwhile may be missed. With
    ``ignore_unknown_types``, job types that the catalog lacks are no finding, because other programs serve them.

    Raises InvalidRequest for a ``max_jobs`` below one, and DatabaseUnavailable when no connection is to be had or a
    page is not read within ``timeout_seconds``.
    """
    check_integer(max_jobs, field="max_jobs", low=1, high=LARGEST_MOST_JOBS)
    preflight = Preflight(catalog, ignore_unknown_types=ignore_unknown_types)
    stored_anew = {encode_schedule(one).name for one in catalog.schedules}
    target = Database(database, schema=schema, pool_size=1) if isinstance(database, str) else database
    try:
        jobs = _Walk(target, list_live_payloads, most=max_jobs, timeout_seconds=timeout_seconds)
        for page in jobs.pages():
            preflight.look(PreflightSource.JOBS, page)
        schedules = _Walk(target, list_scheduled_payloads, most=MOST_SCHEDULES, timeout_seconds=timeout_seconds)
        for page in schedules.pages():
            preflight.look(PreflightSource.SCHEDULES, [one for one in page if one.name not in stored_anew])
    finally:
        if isinstance(database, str):
            target.close()
    return preflight.report(is_complete=jobs.is_complete and schedules.is_complete)


class _Walk:
    """Pages along a key, ``most`` rows in all. ``is_complete`` says afterwards whether there were no more."""

    def __init__(self, database: Database, read: Read, *, most: int, timeout_seconds: float) -> None:
        self._database = database
        self._read = read
        self._left = most
        self._timeout_seconds = timeout_seconds
        self.is_complete = False

    def pages(self) -> Iterator[list[StoredPayload]]:
        """One row more than is left is asked for: whether it is there tells the end from the bound."""
        after, is_cut = "", False
        while not (self.is_complete or is_cut):
            limit = min(PAGE, self._left + 1)
            page = self._page(after, limit)
            wanted = page[: self._left]
            self._left -= len(wanted)
            self.is_complete, is_cut = len(page) < limit, len(wanted) < len(page)
            yield wanted
            after = wanted[-1].name if wanted else after

    def _page(self, after: str, limit: int) -> list[StoredPayload]:
        try:
            with self._database.begin() as ledger:
                only_read(ledger, within_seconds=self._timeout_seconds)
                return self._read(ledger, after=after, limit=limit)
        except (QueryFailed, LockNotAvailable) as error:
            if "57014" not in (error.internal_message or "") and not isinstance(error, LockNotAvailable):
                raise
            said = f"a page was not read within {self._timeout_seconds:g} seconds"
            raise DatabaseUnavailable(said, internal_message=error.internal_message) from None
