"""Schedules: what one is, what it may hold, and, as a pure decision, which of its slots fire now and which is next.

A slot is a moment that the cron expression names; it is the identity of its firing. Jitter delays the firing within
its slot and never past the next one, so slots keep their order.
"""

import json
from dataclasses import KW_ONLY, dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Final, TypeVar
from uuid import UUID

from runledger.core.cron import check_cron, check_timezone, next_fire_at
from runledger.core.errors import InvalidJitter, InvalidPayload, InvalidRequest, InvalidScheduleName
from runledger.core.gate import check_identifier, encode_json
from runledger.core.jobs import JsonValue
from runledger.core.limits import check_integer
from runledger.core.payloads import ORIGIN_KEY, plain_payload
from runledger.core.requests import check_organization
from runledger.core.states import MissedPolicy, OverlapPolicy

MAX_JITTER_SECONDS: Final = 86_400
MISSED_AFTER: Final = timedelta(seconds=60)
"""A firing that is later than this was missed; only ``missed="skip"`` asks."""

MOST_SLOTS_AT_ONCE: Final = 50
"""Slots of one schedule that ``missed="all"`` fires in one tick; the rest follow in the next ones."""

_SECOND: Final = timedelta(seconds=1)
Policy = TypeVar("Policy", MissedPolicy, OverlapPolicy)


@dataclass(frozen=True, slots=True)
class ScheduleRequest:
    """One schedule as it should be. ``missed``: what becomes of slots that nobody fired in time: ``one`` late firing
    for the first of them, ``skip`` or ``all``. ``overlap``: whether to fire while the job of the last firing has not
    ended, ``allow`` or ``skip``. A payload that is no object reaches the job as ``{"payload": ...}``.
    """

    name: str
    _: KW_ONLY
    cron: str
    job_type: str
    payload: JsonValue = None
    timezone: str = "UTC"
    jitter_seconds: int = 0
    missed: MissedPolicy | str = MissedPolicy.ONE
    overlap: OverlapPolicy | str = OverlapPolicy.ALLOW
    organization_id: UUID | str | None = None
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class JobSchedule:
    """A stored schedule as people read it. ``next_slot_at`` is the moment that cron names, ``next_fire_at`` the same
    with jitter, or the next try of a firing that was put off; ``last_error_code`` says why it was."""

    schedule_id: UUID
    name: str
    job_type: str
    organization_id: UUID | None
    payload: JsonValue
    cron: str
    timezone: str
    missed: MissedPolicy
    overlap: OverlapPolicy
    jitter_seconds: int
    is_active: bool
    next_slot_at: datetime
    next_fire_at: datetime
    last_fired_at: datetime | None
    last_job_id: UUID | None
    last_error_code: str | None
    last_error_message: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ScheduleSync:
    """What an exact synchronisation did, by name, sorted."""

    changed: tuple[str, ...] = ()
    deactivated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedSchedule:
    """A request as SQL takes it: checked, in plain types."""

    name: str
    job_type: str
    organization_id: str | None
    payload: str
    cron: str
    timezone: str
    missed: str
    overlap: str
    jitter_seconds: int
    is_active: bool


def encode_schedule(request: ScheduleRequest) -> EncodedSchedule:
    """The request with every limit checked.

    Raises InvalidScheduleName, InvalidCron, InvalidTimezone, InvalidJitter, InvalidIdentifier, InvalidPayload or
    InvalidRequest, which name the field.
    """
    if not isinstance(request.is_active, bool):
        raise InvalidRequest("is_active must be True or False")
    return EncodedSchedule(
        name=check_schedule_name(request.name),
        job_type=check_identifier(request.job_type, field="job_type"),
        organization_id=None if request.organization_id is None else check_organization(request.organization_id),
        payload=_template(request.payload),
        cron=check_cron(request.cron),
        timezone=check_timezone(request.timezone),
        missed=_policy(request.missed, MissedPolicy, "missed").value,
        overlap=_policy(request.overlap, OverlapPolicy, "overlap").value,
        jitter_seconds=check_integer(
            request.jitter_seconds, field="jitter_seconds", low=0, high=MAX_JITTER_SECONDS, error=InvalidJitter
        ),
        is_active=request.is_active,
    )


def check_schedule_name(name: object) -> str:
    """The name, as an identifier. Raises InvalidScheduleName."""
    return check_identifier(name, field="the name of a schedule", error=InvalidScheduleName)


def _template(payload: JsonValue) -> str:
    template = {} if payload is None else plain_payload(payload)
    if isinstance(template, dict) and ORIGIN_KEY in template:
        raise InvalidPayload(f"payload.{ORIGIN_KEY} is written by the scheduler")
    return encode_json(template, error=InvalidPayload)


def _policy(value: object, kind: type[Policy], field: str) -> Policy:
    for policy in kind:
        if isinstance(value, str) and value.lower() == policy.lower():
            return policy
    raise InvalidRequest(f"{field} must be one of {', '.join(policy.lower() for policy in kind)}")


@dataclass(frozen=True, slots=True)
class Timing:
    """What decides about the slots of one schedule."""

    name: str
    cron: str
    timezone: str
    jitter_seconds: int = 0

    def next_slot(self, after: datetime) -> datetime:
        """The first slot later than ``after``."""
        return next_fire_at(self.cron, self.timezone, after)

    def fire_time(self, slot: datetime) -> datetime:
        """The slot with its jitter: the same for the same schedule and slot everywhere, and before the next slot."""
        if not self.jitter_seconds:
            return slot
        room = int((self.next_slot(slot) - slot).total_seconds()) - 1
        digest = blake2b(f"{self.name}\0{slot.timestamp():.6f}".encode(), digest_size=8).digest()
        return slot + int.from_bytes(digest) % (min(self.jitter_seconds, max(room, 0)) + 1) * _SECOND

    def next_slot_due_after(self, slot: datetime, moment: datetime) -> datetime:
        """The first slot later than ``slot`` whose firing lies later than ``moment``."""
        following = self.next_slot(slot)
        if self.fire_time(following) > moment:
            return following
        if self.jitter_seconds:  # the slot before ``moment`` may still have its firing ahead
            last = self._last_slot(max(slot, moment - self.jitter_seconds * _SECOND - _SECOND), moment)
            if last is not None and last > slot and self.fire_time(last) > moment:
                return last
        return self.next_slot(moment)

    def _last_slot(self, low: datetime, high: datetime) -> datetime | None:
        """The last slot later than ``low`` and not later than ``high``, by halving the time between them."""
        last, bound = self.next_slot(low), high
        if last > high:
            return None
        while bound - last >= _SECOND:
            middle = last + (bound - last) / 2
            slot = self.next_slot(middle)
            if slot <= high:
                last = slot
            else:
                bound = middle
        return last


@dataclass(frozen=True, slots=True)
class FiringPlan:
    """The slots to fire now, in order, then the slot to wait for and when it fires."""

    slots: tuple[datetime, ...]
    next_slot_at: datetime
    next_fire_at: datetime


def plan_firing(
    timing: Timing, missed: MissedPolicy, *, slot: datetime, fires_at: datetime, now: datetime
) -> FiringPlan:
    """What a schedule that is due does, when ``slot`` is its next one and should have fired at ``fires_at``.

    ``one`` fires the slot, however late. ``skip`` fires it, or the first after it, that is at most a minute late.
    ``all`` fires it and every later one that is due, at most 50 now. What is left before ``now`` is passed over, except
    by ``all``. Raises InvalidCron or InvalidTimezone.
    """
    fired: list[datetime] = []
    if missed is MissedPolicy.ALL:
        following = slot
        while len(fired) < MOST_SLOTS_AT_ONCE and (not fired or timing.fire_time(following) <= now):
            fired.append(following)
            following = timing.next_slot(following)
        return FiringPlan(tuple(fired), following, timing.fire_time(following))
    if missed is MissedPolicy.SKIP and fires_at < now - MISSED_AFTER:
        slot = timing.next_slot_due_after(slot, now - MISSED_AFTER)
        fires_at = timing.fire_time(slot)
        if fires_at > now:
            return FiringPlan((), slot, fires_at)
    following = timing.next_slot_due_after(slot, now)
    return FiringPlan((slot,), following, timing.fire_time(following))


def origin_of(schedule_id: str, name: str, slot: datetime, *, is_manual: bool = False) -> str:
    """JSON text for ``_schedule`` in the payload of a fired job."""
    scheduled_for = slot.isoformat().replace("+00:00", "Z")
    origin = {"schedule_id": schedule_id, "schedule_name": name, "scheduled_for": scheduled_for}
    return json.dumps(origin | {"is_manual": True} if is_manual else origin)
