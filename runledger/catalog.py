"""The catalog as applications meet it: the rules of ``core`` plus what it does with a database."""

from collections.abc import Sequence

from runledger.core.catalog import JobCatalog as Catalog
from runledger.core.definitions import DefinitionSync, dead_letter_hook_type
from runledger.core.schedules import ScheduleSync
from runledger.postgres.connection import AnyConnection
from runledger.postgres.definitions import sync_definitions, sync_definitions_exact
from runledger.postgres.schedule_reads import schedule_names_of
from runledger.postgres.schedules import sync_schedules, sync_schedules_exact


class JobCatalog(Catalog):
    """Job types with their handlers and settings, which can be stored. The arguments are the settings of types that
    name none."""

    def sync_definitions(self, connection: AnyConnection) -> tuple[str, ...]:
        """Every definition is stored; the answer names the types whose row is new or changed, sorted.

        Additive: stored types that the catalog lacks stay, and one that an operator disabled or paused stays so. Locks
        the changed rows by job type. Raises ActiveScheduleExists when the catalog disables a type that an active
        schedule enqueues.
        """
        return sync_definitions(connection, self.definitions)

    def sync_definitions_exact(self, connection: AnyConnection, scope: Sequence[str]) -> DefinitionSync:
        """The same, but each type is enabled or not as the catalog says, and the types in ``scope`` that the catalog
        lacks are disabled; never deleted. The internal types of dead-letter hooks are in scope with their types.

        Raises EmptyJobTypeList for an empty catalog or scope, InvalidRequest for a type of the catalog outside of the
        scope, and ActiveScheduleExists when a type would be disabled that an active schedule enqueues.
        """
        with_hooks = [name for job_type in scope for name in (job_type, dead_letter_hook_type(job_type))]
        return sync_definitions_exact(connection, self.definitions, scope=with_hooks)

    def sync_schedules(self, connection: AnyConnection) -> tuple[str, ...]:
        """Every schedule is stored, after the definitions have been; the answer names those that are new or changed.

        Additive: stored schedules that the catalog lacks stay, and one that an operator paused stays so. Locks the
        rows by name. Raises ScheduleDefinitionNotFoundOrDisabled for a job type without a stored definition.
        """
        return sync_schedules(connection, self.schedules)

    def sync_schedules_exact(self, connection: AnyConnection, scope: Sequence[str] | None = None) -> ScheduleSync:
        """The same, but each schedule is active or not as the catalog says, and those named in ``scope`` that the
        catalog lacks are paused. Without a scope: those of the catalog's job types, whatever their names."""
        if scope is None:
            names = {*schedule_names_of(connection, self.job_types), *(one.name for one in self.schedules)}
            if not names:
                return ScheduleSync()
            scope = sorted(names)
        return sync_schedules_exact(connection, self.schedules, scope=scope)
