"""The nemesis: which process suffers what, and when. A plan is a pure function of its seed.

A plan names places (the worker in slot 1 of host 0), not processes: whoever lives there when its turn comes is hit.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice")

HOSTS = 2
SLOTS = 2
LEASE_TTL_SECONDS = 10
STOP_SECONDS = LEASE_TTL_SECONDS + 3.0
"""Longer than a lease and the look of a reaper together: what a stopped process held runs elsewhere meanwhile."""

DOUBLE_FAULT_CHANCE = 0.3
"""How often the next action follows before anybody could have recovered from the last one."""


class Kind(StrEnum):
    KILL = "KILL"
    TERM = "TERM"
    STOP = "STOP"


class Role(StrEnum):
    WORKER = "worker"
    KEEPER = "keeper"
    REAPER = "reaper"
    SCHEDULER = "scheduler"
    SUPERVISOR = "supervisor"


KILL_WEIGHTS = {Role.WORKER: 62, Role.KEEPER: 14, Role.REAPER: 6, Role.SCHEDULER: 4, Role.SUPERVISOR: 14}
TERM_WEIGHTS = {Role.WORKER: 1, Role.SUPERVISOR: 1}
STOP_WEIGHTS = {Role.WORKER: 4, Role.KEEPER: 1, Role.SUPERVISOR: 1}
KIND_WEIGHTS = {Kind.KILL: 84, Kind.TERM: 8, Kind.STOP: 8}


@dataclass(frozen=True, slots=True)
class Action:
    """``slot`` counts for workers only. ``pause_seconds`` follow the action."""

    kind: Kind
    host: int
    role: Role
    slot: int
    pause_seconds: float

    def __str__(self) -> str:
        place = f"{self.role}-{self.slot}" if self.role is Role.WORKER else self.role
        return f"{self.kind} host-{self.host}.{place}"


def plan(seed: int, *, kills: int, mean_pause_seconds: float) -> list[Action]:
    """Actions up to and including the ``kills``-th KILL; the same for the same arguments."""
    planned: list[Action] = []
    for action in _actions(random.Random(seed), mean_pause_seconds):
        planned.append(action)
        if sum(one.kind is Kind.KILL for one in planned) == kills:
            return planned
    raise AssertionError("actions do not end")


def _actions(chance: random.Random, mean_pause_seconds: float) -> Iterator[Action]:
    """One process at a time is stopped: two stopped keepers and nothing would be left to watch."""
    clock = stopped_until = 0.0
    while True:
        kind = _weighted(chance, KIND_WEIGHTS)
        role = _weighted(chance, {Kind.KILL: KILL_WEIGHTS, Kind.TERM: TERM_WEIGHTS, Kind.STOP: STOP_WEIGHTS}[kind])
        host, slot = chance.randrange(HOSTS), chance.randrange(SLOTS)
        is_double = chance.random() < DOUBLE_FAULT_CHANCE
        pause = chance.uniform(0.0, 0.05) if is_double else chance.uniform(0.3, 1.7) * mean_pause_seconds
        if kind is Kind.STOP:
            if clock < stopped_until:
                continue
            stopped_until = clock + STOP_SECONDS
        clock += pause
        yield Action(kind, host, role, slot, round(pause, 4))


def _weighted(chance: random.Random, weights: dict[Choice, int]) -> Choice:
    return chance.choices(list(weights), list(weights.values()))[0]
