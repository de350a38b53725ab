"""Birth of a child process: the fork with its window closed, and the first steps on the other side.

Signals are blocked from before the fork until the child has its own handlers, so none is lost and none reaches the
wrong hands. A child dies with its parent, leads its own process group, and leaves by ``os._exit`` only.
"""

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from runledger.core.errors import ConfigurationError, InternalError, RunledgerError
from runledger.core.tracebacks import traceback_text
from runledger.runtime.logs import log

EXIT_UNEXPECTED = 1
EXIT_CONFIGURATION = 78
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class Child:
    """A process that the supervisor started. ``slot_index`` is None for every role but worker."""

    role: str
    pid: int
    spawned_at: float
    slot_index: int | None = None
    kill_cause: str | None = None


def spawn(
    role: str,
    run: Callable[[int], int],
    *,
    slot_index: int | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
) -> Child:
    """A child that runs ``run(parent_pid)`` and exits with its answer; it gets ``death_signal`` from the kernel when
    this process dies.

    Raises InternalError when this process has more than one thread: a lock held by another thread at the moment of
    the fork would stay locked in the child for ever.
    """
    if count_threads() > 1:
        raise InternalError("refusing to fork: the supervisor has more than one thread")
    parent_pid = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            _live(role, run, parent_pid, death_signal)
        os.setpgid(pid, pid)
    except ProcessLookupError:
        pass  # it has already ended; it will be reaped like any other
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return Child(role, pid, time.monotonic(), slot_index)


def _live(role: str, run: Callable[[int], int], parent_pid: int, death_signal: signal.Signals) -> NoReturn:
    status = EXIT_UNEXPECTED
    try:
        _settle_in(parent_pid, death_signal)
        status = run(parent_pid)
    except ConfigurationError as error:
        log(logging.ERROR, "process.misconfigured", role=role, code=error.code, error=str(error), hint=error.hint)
        status = EXIT_CONFIGURATION
    except RunledgerError as error:
        log(
            logging.ERROR, "process.failed", role=role, code=error.code, error=str(error), detail=error.internal_message
        )
    except BaseException as error:
        log(logging.ERROR, "process.crashed", role=role, error=repr(error), traceback=traceback_text(error))
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # a handler may have closed it
                stream.flush()
        os._exit(status)


def _settle_in(parent_pid: int, death_signal: signal.Signals) -> None:
    """The order matters: death signal first, then the check that the parent did not die before it was set."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal)
    if os.getppid() != parent_pid:
        os._exit(0)
    os.setpgid(0, 0)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    faulthandler.register(signal.SIGQUIT, all_threads=True)  # stacks to stderr, and on it goes
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the group; the supervisor decides
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    random.seed()
    gc.freeze()


def unblock_signals() -> None:
    """Called by a child once its own handlers are in place; what was sent meanwhile arrives now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def signal_group(pid: int, number: signal.Signals) -> None:
    """The whole process group gets the signal, so that what a handler started does not outlive its worker."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def count_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def resident_mb(pid: int) -> float:
    """Resident memory of a process in megabytes; 0 when it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1_048_576
    except (OSError, IndexError):
        return 0.0
