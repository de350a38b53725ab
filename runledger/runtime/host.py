"""A host as its processes know it: their roles, the settings that all of them follow, and what they share."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from runledger.runtime.config import JobsConfig
from runledger.runtime.pulse import Pulse
from runledger.runtime.registry import NoticeBoard
from runledger.runtime.slots import Slot, SlotTable
from runledger.runtime.tally import TallyBoard

WORKER = "worker"
KEEPER = "keeper"
REAPER = "reaper"
SCHEDULER = "scheduler"
HEALTH = "health"
CANARY = "canary"
"""Lives for a moment, to find out whether fresh workers could."""

ATTENDING = (KEEPER, REAPER, SCHEDULER, HEALTH)
"""The roles beside the workers, one process each."""


class Pipe(NamedTuple):
    """The two ends of a pipe, neither of which ever blocks."""

    read: int
    write: int

    @classmethod
    def open(cls) -> "Pipe":
        """A new one."""
        ends = os.pipe()
        for end in ends:
            os.set_blocking(end, False)
        return cls(*ends)


@dataclass(frozen=True, slots=True)
class Shared:
    """The memory and the pipes of a host, made before the first fork: every child has them from its supervisor."""

    table: SlotTable
    board: NoticeBoard
    tallies: TallyBoard
    pulses: Mapping[str, Pulse]
    obituaries: Pipe
    wakes: Sequence[Pipe]

    @classmethod
    def among(cls, workers: int) -> "Shared":
        """For so many workers, and for one process of each other role."""
        return cls(
            table=SlotTable(workers),
            board=NoticeBoard(workers),
            tallies=TallyBoard(workers),
            pulses={role: Pulse() for role in ATTENDING},
            obituaries=Pipe.open(),
            wakes=[Pipe.open() for _ in range(workers)],
        )

    def close(self) -> None:
        """The pipes are closed; for a process that goes on without its host."""
        for pipe in (self.obituaries, *self.wakes):
            os.close(pipe.read)
            os.close(pipe.write)


@dataclass(frozen=True, slots=True)
class Host:
    """What every child of one supervisor is born with."""

    host_id: str
    app: str
    database_url: str
    schema: str
    config: JobsConfig
    queues: tuple[str, ...] | None
    is_draining: bool
    with_sync: bool
    is_preloaded: bool
    health_address: str | None
    shared: Shared

    @property
    def slots(self) -> Sequence[Slot]:
        return self.shared.table.slots
