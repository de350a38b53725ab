"""Signals are only queued: a handler writes one byte, and the loop reads it when it is between two steps.

Nothing is ever raised from a handler here; an exception in the middle of a commit would lose the answer to it.
"""

import os
import select
import signal
from collections.abc import Iterable, Sequence


class SignalQueue:
    """The signals of this process in the order they came, and a descriptor that is readable when one waits."""

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self.seen: set[int] = set()
        """Every signal that ever came: what a running handler may ask about while nobody reads the queue."""
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: object) -> None:
        self.seen.add(number)

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        """Signals are not queued here any more."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def take(self) -> list[signal.Signals]:
        """Every queued signal, the first first; they are forgotten here."""
        try:
            data = os.read(self._read, 4_096)
        except BlockingIOError:
            return []
        return [signal.Signals(byte) for byte in data if byte in _KNOWN]


_KNOWN = {int(number) for number in signal.Signals}


def wait_for(descriptors: Sequence[int], seconds: float) -> list[int]:
    """The descriptors that are readable, at the latest after ``seconds``. Not ``select``: it ends at number 1,023."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(max(0.0, seconds) * 1_000)]


def drain(descriptor: int) -> bool:
    """Whether a wake-up byte waited on the pipe; all of them are gone afterwards."""
    try:
        return bool(os.read(descriptor, 4_096))
    except BlockingIOError:
        return False
