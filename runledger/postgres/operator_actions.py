"""What operators did to configs and to many rows at once: who, when, why, what was chosen, how many it hit."""

import json
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import BigInteger, Integer, Text, cast, delete, func, insert, literal_column, or_, select, update
from sqlalchemy.dialects.postgresql import JSONB

from runledger.core.jobs import JsonValue
from runledger.core.operations import OperatorAction, words_of
from runledger.postgres.columns import Columns, decoded, decoded_json, same, selected
from runledger.postgres.connection import AnyConnection, borrow
from runledger.postgres.expressions import NOW, as_microseconds, as_text, from_microseconds, parameter, seconds
from runledger.postgres.reads import check_page
from runledger.postgres.statements import Statement
from runledger.postgres.tables import operator_actions

_stored = operator_actions.c
_ACTION: Columns = (
    (_stored.id, same),
    (_stored.action, same),
    (_stored.actor, same),
    (_stored.reason, same),
    (as_text(_stored.selection), decoded_json),
    (_stored.affected, same),
    (as_text(_stored.detail), decoded_json),
    (as_microseconds(_stored.occurred_at), from_microseconds),
)
LIST_ACTIONS = Statement(
    "list_operator_actions",
    select(*selected(_ACTION))
    .where(or_(parameter("action", Text).is_(None), _stored.action == parameter("action", Text)))
    .where(or_(parameter("before", BigInteger).is_(None), _stored.id < parameter("before", BigInteger)))
    .order_by(_stored.id.desc())
    .limit(parameter("limit", Integer)),
)
RECORD_ACTION = Statement(
    "record_operator_action",
    insert(operator_actions)
    .from_select(
        ["action", "actor", "reason", "selection", "affected", "detail"],
        select(
            parameter("action", Text),
            parameter("actor", Text),
            parameter("reason", Text),
            cast(parameter("selection", Text), JSONB),
            parameter("affected", BigInteger),
            cast(parameter("detail", Text), JSONB),
        ),
    )
    .returning(_stored.id),
)
SET_ACTION = Statement(
    "set_operator_action",
    update(operator_actions)
    .where(_stored.id == parameter("action_id", BigInteger))
    .values(affected=parameter("affected", BigInteger), detail=cast(parameter("detail", Text), JSONB)),
)

_old = select(_stored.id).where(_stored.occurred_at < NOW - seconds("older_than_seconds")).order_by(_stored.id)
PRUNE_ACTIONS = Statement(
    "prune_operator_actions",
    delete(operator_actions)
    .where(_stored.id == func.any(func.array(_old.limit(literal_column("1000")).scalar_subquery())))
    .returning(_stored.id),
)


def prune_operator_actions(connection: AnyConnection, *, older_than: timedelta) -> int:
    """At most 1,000 actions of longer ago leave; how many."""
    return len(borrow(connection).fetch(PRUNE_ACTIONS, {"older_than_seconds": older_than.total_seconds()}))


def record_operator_action(
    connection: AnyConnection,
    action: str,
    *,
    selection: Mapping[str, JsonValue],
    affected: int,
    actor: str | None = None,
    reason: str | None = None,
    detail: Mapping[str, JsonValue] | None = None,
) -> int:
    """The action is on record with the caller's commit; answers with its id."""
    parameters = {
        "action": action,
        **words_of(reason, actor),
        "selection": json.dumps(dict(selection), default=str),
        "affected": affected,
        "detail": json.dumps(dict(detail or {}), default=str),
    }
    return int(borrow(connection).fetch(RECORD_ACTION, parameters)[0][0])


def set_operator_action(
    connection: AnyConnection, action_id: int, *, affected: int, detail: Mapping[str, JsonValue]
) -> None:
    """An action that goes on over several commits has hit so many rows now."""
    parameters = {"action_id": action_id, "affected": affected, "detail": json.dumps(dict(detail))}
    borrow(connection).fetch(SET_ACTION, parameters)


def list_operator_actions(
    connection: AnyConnection, *, action: str | None = None, before: int | None = None, limit: int = 100
) -> list[OperatorAction]:
    """Actions, the latest first; pass the last ``action_id`` of a page as ``before`` to get the next one."""
    parameters = {"action": action, "before": before, "limit": check_page(limit)}
    return [OperatorAction(*decoded(_ACTION, row)) for row in borrow(connection).fetch(LIST_ACTIONS, parameters)]
