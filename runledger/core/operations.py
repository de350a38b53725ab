"""What operators set and what is remembered of what they did: values only."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from runledger.core.gate import REASON_LIMIT, clean_text
from runledger.core.jobs import JsonValue

ACTOR_LIMIT = 200


def words_of(reason: str | None, actor: str | None) -> dict[str, str | None]:
    """Why and who, as they are stored: cut to 2,048 and 200 bytes."""
    return {
        "reason": None if reason is None else clean_text(reason, REASON_LIMIT),
        "actor": None if actor is None else clean_text(actor, ACTOR_LIMIT),
    }


@dataclass(frozen=True, slots=True)
class JobRuntimeConfig:
    """The settings of one job type that handlers read while they run. ``schema_version`` is the shape of ``config``,
    for handlers that know several; ``revision`` counts its changes, for people who change it."""

    job_type: str
    config: dict[str, JsonValue]
    schema_version: int
    revision: int
    changed_by: str | None
    updated_by_user_id: UUID | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OperatorAction:
    """What somebody did to a config or to many rows at once. ``selection`` says what was chosen, ``affected`` how many
    rows it hit, ``detail`` what else is worth knowing."""

    action_id: int
    action: str
    actor: str | None
    reason: str | None
    selection: JsonValue
    affected: int
    detail: JsonValue
    occurred_at: datetime
