"""The catalog as applications meet it: the rules of ``core`` plus what it does with a database."""

from runledger.core.catalog import JobCatalog as Catalog
from runledger.postgres.connection import AnyConnection
from runledger.postgres.definitions import sync_definitions


class JobCatalog(Catalog):
    """Job types with their handlers and settings, which can be stored. The arguments are the settings of types that
    name none."""

    def sync_definitions(self, connection: AnyConnection) -> tuple[str, ...]:
        """Every definition is stored; the answer names the types whose row is new or changed, sorted.

        Additive: stored types that the catalog lacks stay, and one that an operator disabled or paused stays so. Locks
        the changed rows by job type.
        """
        return sync_definitions(connection, self.definitions)
