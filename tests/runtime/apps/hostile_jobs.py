"""Handlers that behave, and handlers that do the worst a handler can do.

Each says what it did in the table ``effects``, over a connection of its own, so that a test can wait for it. A gate is
a file whose appearance lets a handler go on.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import psycopg

from runledger import JobCancelled, JobCatalog, JobContext, RetryPolicy

AT_ONCE = RetryPolicy(base_seconds=0.01, factor=1.0, jitter=False)
GATE_LOOK_SECONDS = 0.005
catalog = JobCatalog(retry=AT_ONCE, max_attempts=3, timeout_seconds=120)


def record(context: JobContext, note: str) -> None:
    with psycopg.connect(os.environ["RL_TEST_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "INSERT INTO effects (job_id, attempt, pid, note) VALUES (%s, %s, %s, %s)",
            (context.job_id, context.attempt, os.getpid(), note),
        )


def wait_for_gate(payload: dict[str, Any]) -> None:
    while not Path(payload["gate"]).exists():
        time.sleep(GATE_LOOK_SECONDS)


@catalog.job("noop")
def noop(context: JobContext, payload: dict[str, Any]) -> None:
    pass


@catalog.job("work", max_attempts=50)
def work(context: JobContext, payload: dict[str, Any]) -> str:
    record(context, "ran")
    return "done"


@catalog.job("gated")
def gated(context: JobContext, payload: dict[str, Any]) -> str:
    record(context, "begun")
    wait_for_gate(payload)
    record(context, "ended")
    return "done"


@catalog.job("insistent")
def insistent(context: JobContext, payload: dict[str, Any]) -> str:
    """Goes on whatever is raised into it, and returns as if nothing had happened."""
    record(context, "begun")
    while not Path(payload["gate"]).exists():
        with contextlib.suppress(BaseException):
            wait_for_gate(payload)
    record(context, "ended")
    return "done"


@catalog.job("fails.once")
def fails_once(context: JobContext, payload: dict[str, Any]) -> None:
    if context.attempt == 1:
        raise ValueError("the first attempt fails")


@catalog.job("cancellable")
def cancellable(context: JobContext, payload: dict[str, Any]) -> None:
    record(context, "begun")
    try:
        wait_for_gate(payload)
    except JobCancelled:
        record(context, "cancelled")
        raise


@catalog.job("raises.cancelled")
def raises_cancelled(context: JobContext, payload: dict[str, Any]) -> None:
    raise JobCancelled("the handler's own wish; nobody cancelled anything")


@catalog.job("exits")
def exits(context: JobContext, payload: dict[str, Any]) -> None:
    record(context, "begun")
    os._exit(payload["status"])


@catalog.job("segfault.once")
def segfault_once(context: JobContext, payload: dict[str, Any]) -> None:
    record(context, "begun")
    if context.attempt == 1:
        ctypes.string_at(0)


@catalog.job("segfault", max_attempts=10)
def segfault(context: JobContext, payload: dict[str, Any]) -> None:
    ctypes.string_at(0)


@catalog.job("stubborn", max_attempts=1, timeout_seconds=1)
def stubborn(context: JobContext, payload: dict[str, Any]) -> None:
    record(context, "begun")
    while True:
        with contextlib.suppress(BaseException):
            time.sleep(0.01)


@catalog.job("big.integer", max_attempts=1, timeout_seconds=1)
def big_integer(context: JobContext, payload: dict[str, Any]) -> int:
    """Holds the interpreter's lock for minutes; long multiplication looks for signals now and then."""
    record(context, "begun")
    return (7 ** (3**17)).bit_length()


@catalog.job("c.loop", max_attempts=1, timeout_seconds=1)
def c_loop(context: JobContext, payload: dict[str, Any]) -> None:
    """Holds the interpreter's lock in one C call for an hour, and looks for nothing."""
    record(context, "begun")
    deque(itertools.repeat(None, 10**12), maxlen=0)


@catalog.job("raises", max_attempts=1)
def raises(context: JobContext, payload: dict[str, Any]) -> None:
    raise {"SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt, "GeneratorExit": GeneratorExit}[
        payload["kind"]
    ]


@catalog.job("forks")
def forks(context: JobContext, payload: dict[str, Any]) -> str:
    """Both sides return."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    record(context, "parent" if child else "child")
    return "parent" if child else "child"


@catalog.job("leaves.child")
def leaves_child(context: JobContext, payload: dict[str, Any]) -> None:
    """The child outlives the handler, in the worker's process group; then the worker dies."""
    if os.fork() == 0:
        wait_for_gate(payload)
        os._exit(0)
    record(context, "begun")
    wait_for_gate(payload)


@catalog.job("closes.descriptors", max_attempts=1)
def closes_descriptors(context: JobContext, payload: dict[str, Any]) -> None:
    os.closerange(0, 4_096)


@catalog.job("blocks.term")
def blocks_term(context: JobContext, payload: dict[str, Any]) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


@catalog.job("leaves.threads")
def leaves_threads(context: JobContext, payload: dict[str, Any]) -> None:
    for _ in range(8):
        threading.Thread(target=threading.Event().wait).start()
