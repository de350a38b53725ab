"""The nemesis: what suffers what, and when. A plan is a pure function of its seed.

A plan names places (the worker in slot 1 of host 0, the network of the load), not processes: whoever lives there when
its turn comes is hit.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice")

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
    ROLL = "ROLL"
    """Every host in turn is told to stop and replaced."""
    TERMINATE = "TERMINATE"
    """``pg_terminate_backend`` of sessions of ours."""
    CRASH = "CRASH"
    """The server stops at once, without a checkpoint, and starts again."""
    NETWORK = "NETWORK"
    LOCK = "LOCK"
    """An operator holds a table in ACCESS EXCLUSIVE."""
    READER = "READER"
    """A transaction of an operator keeps its snapshot."""
    FAILOVER = "FAILOVER"
    """The primary is lost, and its standby promoted; a new standby is made of the new primary."""
    POOLER = "POOLER"
    """The pooler is killed, and started again after a while."""


class Role(StrEnum):
    WORKER = "worker"
    KEEPER = "keeper"
    REAPER = "reaper"
    SCHEDULER = "scheduler"
    SUPERVISOR = "supervisor"


class Fault(StrEnum):
    """What happens to the connections of one place, for as long as it lasts."""

    REFUSE = "REFUSE"
    """New connections are refused."""
    RESET = "RESET"
    """All that are open are reset, once."""
    BLACK_HOLE = "BLACK_HOLE"
    """Nothing arrives in either direction, and nobody is told."""
    DELAY = "DELAY"
    DROP = "DROP"
    """A statement is never sent: the connection is reset before."""
    CUT = "CUT"
    """The server gets the statement, and its answer is replaced by a reset: nobody knows whether it was committed."""


TABLES = ("job_queue", "job_ready", "job_leases", "job_scheduled", "workflow_runs", "job_attempts")
KIND_WEIGHTS = {
    Kind.KILL: 800,
    Kind.TERM: 45,
    Kind.STOP: 25,
    Kind.ROLL: 3,
    Kind.TERMINATE: 50,
    Kind.CRASH: 22,
    Kind.NETWORK: 45,
    Kind.LOCK: 8,
    Kind.READER: 2,
}
PROCESS_WEIGHTS = {
    Kind.KILL: {Role.WORKER: 66, Role.KEEPER: 13, Role.REAPER: 6, Role.SCHEDULER: 5, Role.SUPERVISOR: 10},
    Kind.TERM: {Role.WORKER: 2, Role.SUPERVISOR: 1},
    Kind.STOP: {Role.WORKER: 5, Role.KEEPER: 2, Role.SUPERVISOR: 1, Role.SCHEDULER: 1, Role.REAPER: 1},
}
FAULT_WEIGHTS = {Fault.REFUSE: 2, Fault.RESET: 3, Fault.BLACK_HOLE: 2, Fault.DELAY: 2, Fault.DROP: 1, Fault.CUT: 4}
FAULT_SECONDS = {
    Fault.REFUSE: (0.5, 4.0),
    Fault.RESET: (0.0, 0.0),
    Fault.BLACK_HOLE: (1.0, 5.0),
    Fault.DELAY: (1.0, 5.0),
    Fault.DROP: (0.2, 1.0),
    Fault.CUT: (0.2, 1.0),
}
SERVER_CHANCES = {Kind.FAILOVER: 0.025, Kind.POOLER: 0.025}
"""How often one of these precedes another action. They are drawn from a chance of their own, so that a seed means the
same kills with them and without."""

READ_ONLY_CHANCE = 0.5
"""How often clients reach the standby before it is promoted."""

READ_ONLY_SECONDS = (0.2, 1.5)
POOLER_SECONDS = (0.0, 2.0)
LOCK_SECONDS = (0.2, 2.5)
READER_SECONDS = (30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Action:
    """``host`` counts for processes and networks (one more than there are hosts: the network of the load), ``role`` and
    ``slot`` for processes, ``what`` for networks (a fault) and locks (a table). ``seconds`` is how long it lasts: of a
    failover, how long nobody can be written to. ``pause_seconds`` follow the action."""

    kind: Kind
    host: int = 0
    role: Role | None = None
    slot: int = 0
    what: str = ""
    seconds: float = 0.0
    pause_seconds: float = 0.0

    def __str__(self) -> str:
        place = f"host-{self.host}"
        if self.role is not None:
            place += f".{self.role}" + (f"-{self.slot}" if self.role is Role.WORKER else "")
        elif self.kind not in (Kind.NETWORK, Kind.TERMINATE):
            place = ""
        duration = f"{self.seconds:.1f}s" if self.seconds else ""
        return " ".join(part for part in (self.kind.value, self.what, place, duration) if part)


def plan(seed: int, *, hosts: int, kills: int, mean_pause_seconds: float) -> list[Action]:
    """Actions up to and including the ``kills``-th KILL; the same for the same arguments."""
    planned: list[Action] = []
    killed = 0
    chance = random.Random(f"{seed}-servers")
    for action in _actions(random.Random(seed), hosts, mean_pause_seconds):
        planned.extend(_of_servers(chance, mean_pause_seconds))
        planned.append(action)
        killed += action.kind is Kind.KILL
        if killed == kills:
            return planned
    raise AssertionError("actions do not end")


def _actions(chance: random.Random, hosts: int, mean_pause_seconds: float) -> Iterator[Action]:
    """One process at a time is stopped: two stopped keepers and nothing would be left to watch."""
    clock = stopped_until = 0.0
    while True:
        kind = _weighted(chance, KIND_WEIGHTS)
        is_double = chance.random() < DOUBLE_FAULT_CHANCE
        pause = chance.uniform(0.0, 0.05) if is_double else chance.uniform(0.3, 1.7) * mean_pause_seconds
        if kind is Kind.STOP:
            if clock < stopped_until:
                continue
            stopped_until = clock + STOP_SECONDS
        clock += pause
        yield _action(chance, kind, hosts, round(pause, 4))


def _action(chance: random.Random, kind: Kind, hosts: int, pause: float) -> Action:
    if kind in PROCESS_WEIGHTS:
        role = _weighted(chance, PROCESS_WEIGHTS[kind])
        return Action(kind, chance.randrange(hosts), role, chance.randrange(SLOTS), pause_seconds=pause)
    if kind is Kind.NETWORK:
        fault = _weighted(chance, FAULT_WEIGHTS)
        seconds = round(chance.uniform(*FAULT_SECONDS[fault]), 3)
        return Action(kind, chance.randrange(hosts + 1), what=fault.value, seconds=seconds, pause_seconds=pause)
    if kind is Kind.LOCK:
        seconds = round(chance.uniform(*LOCK_SECONDS), 3)
        return Action(kind, what=chance.choice(TABLES), seconds=seconds, pause_seconds=pause)
    if kind is Kind.READER:
        return Action(kind, seconds=round(chance.uniform(*READER_SECONDS), 3), pause_seconds=pause)
    return Action(kind, chance.randrange(hosts), pause_seconds=pause)


def _of_servers(chance: random.Random, mean_pause_seconds: float) -> Iterator[Action]:
    kinds = [kind for kind, share in SERVER_CHANCES.items() if chance.random() < share]
    for kind in kinds:
        pause = round(chance.uniform(0.0, 1.7) * mean_pause_seconds, 4)
        lasts = kind is Kind.POOLER or chance.random() < READ_ONLY_CHANCE
        seconds = chance.uniform(*(POOLER_SECONDS if kind is Kind.POOLER else READ_ONLY_SECONDS)) if lasts else 0.0
        yield Action(kind, seconds=round(seconds, 3), pause_seconds=pause)


def _weighted(chance: random.Random, weights: dict[Choice, int]) -> Choice:
    return chance.choices(list(weights), list(weights.values()))[0]
