"""How many jobs have begun, and when: one small file for each process that runs jobs, shared through memory.

Counting costs a handler well under a microsecond and no system at all of its own, so every contender is counted alike.
"""

import mmap
import os
import struct
import threading
import time
from collections.abc import Mapping
from io import BufferedWriter
from pathlib import Path
from typing import Any, NamedTuple

DIRECTORY_VARIABLE = "BENCH_BOARD"
WORK_VARIABLE = "BENCH_WORK_MS"
SENT = "sent_ns"
"""Key of a payload: when its job was enqueued, on the machine's monotonic clock."""

SAMPLES_SUFFIX = ".samples"
_SAMPLE = struct.Struct("qq")  # monotonic nanoseconds of the start, and of the wait before it
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
        self._samples: BufferedWriter | None = None

    def begin(self, sent_ns: int | None = None) -> None:
        """One more job has begun; ``sent_ns`` says when it was enqueued, and is kept as a sample of the wait."""
        with self._lock:
            now = time.monotonic_ns()
            if self._pid != os.getpid():
                self._open(now)
            assert self._memory is not None
            self._begun += 1
            _RECORD.pack_into(self._memory, 0, self._begun, self._first_ns, now)
            if sent_ns is not None:
                assert self._samples is not None
                self._samples.write(_SAMPLE.pack(now, now - sent_ns))

    def _open(self, now: int) -> None:
        self._pid, self._begun, self._first_ns = os.getpid(), 0, now
        path = Path(os.environ[DIRECTORY_VARIABLE]) / str(self._pid)
        path.write_bytes(bytes(_RECORD.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _RECORD.size)
        self._samples = path.with_suffix(SAMPLES_SUFFIX).open("wb", buffering=_SAMPLE.size * 32)


begin = Counter().begin
"""Called by every handler as its first act."""


def work(payload: Mapping[str, Any] | None = None) -> None:
    """The whole of a synchronous handler."""
    begin(payload.get(SENT) if payload else None)
    if WORK_SECONDS:
        time.sleep(WORK_SECONDS)


def read(directory: str) -> Board:
    """What all processes have counted so far."""
    contents = [path.read_bytes() for path in Path(directory).iterdir() if path.suffix != SAMPLES_SUFFIX]
    records = [_RECORD.unpack(data) for data in contents if len(data) == _RECORD.size]
    began = [record for record in records if record[0]]
    if not began:
        return Board(0, 0, 0)
    return Board(sum(one[0] for one in began), min(one[1] for one in began), max(one[2] for one in began))


class Samples:
    """Start and wait of every job that told when it was sent, in monotonic nanoseconds."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._read: dict[Path, int] = {}

    def new(self) -> list[tuple[int, int]]:
        """Those that were written since the last call; each process keeps up to 32 back."""
        found: list[tuple[int, int]] = []
        for path in self._directory.glob(f"*{SAMPLES_SUFFIX}"):
            offset = self._read.get(path, 0)
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read()
            whole = len(data) // _SAMPLE.size * _SAMPLE.size
            self._read[path] = offset + whole
            found += _SAMPLE.iter_unpack(data[:whole])
        return found
