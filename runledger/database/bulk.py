"""Changes of many jobs in batches that commit one by one, with one operator action that grows with them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from runledger.core.bulk import ChangedJobs
from runledger.core.filters import JobFilter
from runledger.core.jobs import JsonValue, Scope
from runledger.database.database import Database
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.operator_actions import record_operator_action, set_operator_action

Watch = Callable[[ChangedJobs], object]
"""Hears after each commit what all batches did together so far."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What the operator action says: the name of what is done, to whose jobs, by whom and why."""

    action: str
    scope: Scope
    actor: str | None
    reason: str | None
    values: Mapping[str, JsonValue] = field(default_factory=dict)
    """What else the action says beside its counts."""

    def selection(self, wanted: Sequence[JobFilter]) -> dict[str, JsonValue]:
        statuses: list[JsonValue] = [str(one.status) for one in wanted]
        organization = self.scope.organization_id
        return wanted[0].as_json() | {
            "status": statuses,
            "scope": self.scope.kind.value,
            "organization_id": None if organization is None else str(organization),
        }


def change_in_batches(
    database: Database,
    operation: Operation,
    wanted: Sequence[JobFilter],
    batch: Callable[..., ChangedJobs],
    watch: Watch | None = None,
) -> ChangedJobs:
    """All jobs that these filters find are changed, those of the first filter first.

    ``batch`` changes one page: it takes a connection, a filter, and the id ``before`` which the page begins.
    Whatever ends it early, whole batches are done and the operator action says how much: both commit together.
    """
    done, action_id = ChangedJobs(), None
    for one in wanted:
        before: UUID | None = None
        while True:
            with database.begin() as connection:
                changed = batch(connection, one, before=before)
                so_far = done.and_then(changed)
                action_id = _recorded(connection, operation, wanted, action_id, so_far)
            done, before = so_far, changed.next_before
            if watch is not None:
                watch(done)
            if before is None:
                break
    return done


def _recorded(
    connection: LedgerConnection,
    operation: Operation,
    wanted: Sequence[JobFilter],
    action_id: int | None,
    done: ChangedJobs,
) -> int:
    detail: dict[str, JsonValue] = {
        **operation.values,
        "matched": done.matched,
        "skipped": done.skipped,
        "of_workflows": done.of_workflows,
    }
    if action_id is not None:
        set_operator_action(connection, action_id, affected=done.changed, detail=detail)
        return action_id
    return record_operator_action(
        connection,
        operation.action,
        selection=operation.selection(wanted),
        affected=done.changed,
        actor=operation.actor,
        reason=operation.reason,
        detail=detail,
    )
