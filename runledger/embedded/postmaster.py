"""Who the process behind ``postmaster.pid`` really is.

A pid in a file proves nothing: it may be a zombie, or after a reboot somebody else's program. A process is ours
when it is a live ``postgres`` whose command line names our data directory, and nothing else is ever signalled.
"""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PID_FILE = "postmaster.pid"
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Postmaster:
    """What ``postmaster.pid`` says; ``socket_directory`` is empty until the server listens."""

    pid: int
    socket_directory: str
    is_ready: bool


def read_postmaster(data: Path) -> Postmaster | None:
    """The contents of the pid file; None when it is missing, truncated or not ours to read."""
    try:
        lines = os.fsdecode((data / PID_FILE).read_bytes()).splitlines()
        pid = int(lines[0])
    except (OSError, ValueError, IndexError):
        return None
    fields = lines + [""] * (8 - len(lines))
    return Postmaster(pid, socket_directory=fields[4], is_ready=fields[7].strip() == "ready") if pid > 0 else None


def live_postmaster(data: Path) -> Postmaster | None:
    """The running server of this data directory; None when the pid file names nobody or somebody else."""
    found = read_postmaster(data)
    return found if found is not None and is_postmaster(found.pid, data) else None


def is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie waiting for its parent."""
    return _process_state(pid) not in ("", "Z", "X")


def process_exists(pid: int) -> bool:
    """Whether the pid is taken, be it by a zombie."""
    return _process_state(pid) != ""


def is_postmaster(pid: int, data: Path) -> bool:
    """Whether this process is a live ``postgres -D`` of exactly this data directory."""
    if not is_running(pid):
        return False
    arguments = _command_line(pid, data)
    if len(arguments) < 3 or os.path.basename(arguments[0]) != "postgres" or "-D" not in arguments[:-1]:
        return False
    return os.path.realpath(arguments[arguments.index("-D") + 1]) == os.path.realpath(data)


def processes_in(data: Path) -> list[int]:
    """Every live process that works inside the data directory, orphaned backends included; empty without ``/proc``."""
    place = os.path.realpath(data)
    return [pid for pid in _all_pids() if _working_directory(pid) == place and is_running(pid)]


def wait_until_gone(pids: list[int], timeout_seconds: float) -> list[int]:
    """Those of the processes that still run when the time is over; empty as soon as all are gone."""
    deadline = time.monotonic() + timeout_seconds
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return left


def signal_postmaster(pid: int, data: Path, signal_number: int) -> bool:
    """The signal was sent, and only to the server of this data directory; False when it is not that process."""
    if not is_postmaster(pid, data):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal_number)
    return True


def _all_pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _working_directory(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/cwd")
    except OSError:
        return ""


def _process_state(pid: int) -> str:
    if not os.path.exists("/proc/self/stat"):
        return _ask_ps(pid, "stat=")[:1]
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return ""
    return text.rpartition(b")")[2].split()[0].decode()


def _command_line(pid: int, data: Path) -> list[str]:
    if not os.path.exists("/proc/self/cmdline"):
        # ps joins the arguments with blanks, so the data directory is looked for as a whole
        program, _, rest = _ask_ps(pid, "args=").partition(" -D ")
        return [program, "-D", str(data)] if f"{rest} ".startswith(f"{data} ") else []
    try:
        return os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
    except OSError:
        return []


def _ask_ps(pid: int, column: str) -> str:
    answer = subprocess.run(["ps", "-ww", "-o", column, "-p", str(pid)], capture_output=True, check=False)
    return os.fsdecode(answer.stdout).strip()
