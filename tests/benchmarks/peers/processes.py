"""What trees of processes cost: CPU seconds and memory, from /proc."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
END_SECONDS = 8.0


def tree(root: int) -> list[int]:
    """``root`` and all that descends from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, unseen = [], [root]
    while unseen:
        pid = unseen.pop()
        found.append(pid)
        unseen += children.get(pid, [])
    return found


def parents_of(pid: int) -> list[int]:
    """The parent of ``pid``; empty when this machine has no such process."""
    fields = _stat(pid)
    return [] if fields is None else [int(fields[1])]


def cpu_seconds(roots: list[int]) -> float:
    """Of the living processes of these trees and of their children that ended and were waited for."""
    ticks = 0
    for pid in {pid for root in roots for pid in tree(root)}:
        if fields := _stat(pid):
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def memory_mb(roots: list[int]) -> dict[str, float]:
    """``RSS`` of the largest process and ``PSS`` of all of them together."""
    largest = total = 0
    for pid in {pid for root in roots for pid in tree(root)}:
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
            largest, total = max(largest, sizes["Rss"]), total + sizes["Pss"]
    return {"RSS MB": largest / 1_024, "PSS MB": total / 1_024}


@contextlib.contextmanager
def running(commands: list[list[str]], environment: dict[str, str], log: Path) -> Iterator[list[int]]:
    """The processes run inside the block and are gone after it, with all that they started; ids of the roots."""
    with log.open("ab") as output:
        roots = [
            subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            for words in commands
        ]
    try:
        yield [root.pid for root in roots]
    finally:
        everyone = [pid for root in roots for pid in tree(root.pid)]
        for root in roots:
            root.send_signal(signal.SIGTERM)
        _end(roots, everyone)


def _end(roots: list[subprocess.Popen[bytes]], everyone: list[int]) -> None:
    deadline = time.monotonic() + END_SECONDS
    for root in roots:
        with contextlib.suppress(subprocess.TimeoutExpired):
            root.wait(max(0.0, deadline - time.monotonic()))
    owned = {pid for pid in everyone if _stat(pid) is not None}
    for pid in owned:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for root in roots:
        root.wait()


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
