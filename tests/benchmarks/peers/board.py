"""How many jobs have begun, and when: one small file for each process that runs jobs, shared through memory.

Counting costs a handler well under a microsecond and no system at all of its own, so every contender is counted alike.
"""

import mmap
import os
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

DIRECTORY_VARIABLE = "BENCH_BOARD"
WORK_VARIABLE = "BENCH_WORK_MS"
_RECORD = struct.Struct("qqq")  # begun, monotonic nanoseconds of the first and of the last

WORK_SECONDS = float(os.environ.get(WORK_VARIABLE, "0")) / 1_000
"""How long a handler sleeps: 0 for jobs that do nothing."""


class Board(NamedTuple):
    """Sums over all processes; times in monotonic nanoseconds, 0 before the first job."""

    begun: int
    first_ns: int
    last_ns: int


class Counter:
    """The record of this process; a fork gets its own at its first job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._begun = self._first_ns = 0
        self._memory: mmap.mmap | None = None

    def begin(self) -> None:
        with self._lock:
            now = time.monotonic_ns()
            if self._pid != os.getpid():
                self._open(now)
            assert self._memory is not None
            self._begun += 1
            _RECORD.pack_into(self._memory, 0, self._begun, self._first_ns, now)

    def _open(self, now: int) -> None:
        self._pid, self._begun, self._first_ns = os.getpid(), 0, now
        path = Path(os.environ[DIRECTORY_VARIABLE]) / str(self._pid)
        path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _RECORD.size)


begin = Counter().begin
"""Called by every handler as its first act."""


def work() -> None:
    """The whole of a synchronous handler."""
    begin()
    if WORK_SECONDS:
        time.sleep(WORK_SECONDS)


def read(directory: str) -> Board:
    """What all processes have counted so far."""
    records = [_RECORD.unpack(data) for data in _contents(directory) if len(data) == _RECORD.size]
    began = [record for record in records if record[0]]
    if not began:
        return Board(0, 0, 0)
    return Board(sum(one[0] for one in began), min(one[1] for one in began), max(one[2] for one in began))


def _contents(directory: str) -> list[bytes]:
    return [path.read_bytes() for path in Path(directory).iterdir()]
