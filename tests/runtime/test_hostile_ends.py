"""Hostile ends of handlers, by name, over one worker in this process: each ends its own job as the table says, leaves
one attempt behind, and the next job runs as if nothing had been."""

import asyncio
import contextlib
import decimal
import os
import random
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from runtime.benches import Bench

from runledger import JobCatalog, JobContext, JobFailure, JobStatus, Outcome, RetryPolicy, Snooze

MakeBench = Callable[..., Bench]
Handler = Callable[[JobContext], Any]


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Exiting(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class Unequal:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compared")

    __hash__ = None  # type: ignore[assignment]


def raises(error: BaseException) -> Handler:
    def handler(context: JobContext) -> None:
        raise error

    return handler


def raises_from_a_chain(context: JobContext) -> None:
    error: BaseException = ValueError("first")
    for number in range(200):
        following = ValueError(f"number {number}")
        following.__cause__ = error
        error = following
    raise error


def raises_a_circle(context: JobContext) -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    raise one


def fails_in_many_ways_at_once(context: JobContext) -> None:
    raise ExceptionGroup("many", [ExceptionGroup("more", [ValueError(str(number))]) for number in range(100)])


def floods(context: JobContext) -> str:
    sys.stdout.write("x" * 1_000_000)
    sys.stderr.write("y" * 1_000_000)
    return "done"


def leaves_the_world_changed(context: JobContext) -> str:
    os.environ["HOSTILE"] = "yes"
    os.chdir("/")
    sys.setrecursionlimit(2_000)
    random.seed(1)
    warnings.simplefilter("error")
    decimal.getcontext().prec = 1
    return "done"


def leaves_a_thread(context: JobContext) -> str:
    threading.Thread(target=time.sleep, args=(0.2,), daemon=True).start()
    return "done"


def runs_a_loop(context: JobContext) -> str:
    async def nothing() -> str:
        return "done"

    return asyncio.run(nothing())


def forgets_a_coroutine(context: JobContext) -> Any:
    async def nothing() -> None: ...

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        coroutine = nothing()
        coroutine.close()
    return coroutine


def replaces_signals(context: JobContext) -> str:
    kept = signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, kept)
    return "done"


def recurses(context: JobContext) -> None:
    recurses(context)


def swallows_and_returns(context: JobContext) -> str:
    with contextlib.suppress(BaseException):
        raise SystemExit(1)
    return "done"


def says(call: Callable[[JobContext], object]) -> Handler:
    def handler(context: JobContext) -> str:
        call(context)
        return "done"

    return handler


D, F, OK = JobStatus.DEAD_LETTERED, JobStatus.PENDING, JobStatus.SUCCEEDED
OUTCOMES = {D: Outcome.TERMINAL, F: Outcome.RETRYABLE, OK: Outcome.SUCCEEDED}
ENDS: dict[str, tuple[Handler, JobStatus, str | None]] = {
    "H01 an exception": (raises(ValueError("x")), F, "exception.ValueError"),
    "H01b a BaseException": (raises(BaseException("x")), F, "exception.BaseException"),
    "H01c a GeneratorExit": (raises(GeneratorExit()), F, "exception.GeneratorExit"),
    "H01d a StopIteration": (raises(StopIteration(1)), F, "exception.StopIteration"),
    "H02 an error without text": (raises(Silent()), F, None),
    "H02b an error whose text ends the interpreter": (raises(Exiting()), F, None),
    "H03 NUL in the message": (raises(ValueError("a\0b")), F, "exception.ValueError"),
    "H03b a surrogate in the message": (raises(ValueError("a\udc80")), F, "exception.ValueError"),
    "H03c bytes as the message": (raises(ValueError(b"\xff\x00")), F, "exception.ValueError"),
    "H04 a message of 10 MB": (raises(ValueError("x" * 10_000_000)), F, "exception.ValueError"),
    "H04b a class of an endless name": (raises(type("E" * 100_000, (Exception,), {})()), F, None),
    "H04c a class with a line end in its name": (raises(type("a\nb\x1bc", (Exception,), {})()), F, None),
    "H05 a group of groups": (fails_in_many_ways_at_once, F, "exception.ExceptionGroup"),
    "H05b a chain of two hundred causes": (raises_from_a_chain, F, "exception.ValueError"),
    "H05c causes in a circle": (raises_a_circle, F, "exception.ValueError"),
    "H06 SystemExit(0)": (raises(SystemExit(0)), F, "exception.SystemExit"),
    "H06b SystemExit with a text": (raises(SystemExit("bye")), F, "exception.SystemExit"),
    "H07 KeyboardInterrupt": (raises(KeyboardInterrupt()), F, "exception.KeyboardInterrupt"),
    "H11 MemoryError": (raises(MemoryError()), F, "exception.MemoryError"),
    "H12 endless recursion": (recurses, F, "exception.RecursionError"),
    "H13 a broken pipe": (raises(BrokenPipeError()), F, "exception.BrokenPipeError"),
    "H16 everything swallowed": (swallows_and_returns, OK, None),
    "H18 a thread left behind": (leaves_a_thread, OK, None),
    "H19 the world changed": (leaves_the_world_changed, OK, None),
    "H22 a signal handler replaced and put back": (replaces_signals, OK, None),
    "H23 a flood of output": (floods, OK, None),
    "H25 a loop of its own": (runs_a_loop, OK, None),
    "H27 NaN": (lambda _: float("nan"), D, "job.invalid_output"),
    "H27b bytes": (lambda _: b"x", D, "job.invalid_output"),
    "H27c 100 MB": (lambda _: "x" * 100_000_000, D, "job.invalid_output"),
    "H27d NUL": (lambda _: {"a": "\0"}, D, "job.invalid_output"),
    "H27e a surrogate": (lambda _: "\ud800", D, "job.invalid_output"),
    "H27f integer keys": (lambda _: {1: 2}, D, "job.invalid_output"),
    "H27g depth 100": (lambda _: nested(100), D, "job.invalid_output"),
    "H27h an object that cannot be compared": (lambda _: Unequal(), D, "job.invalid_output"),
    "H27i a generator": (lambda _: (one for one in ()), D, "job.invalid_output"),
    "H27j a coroutine": (forgets_a_coroutine, D, "job.invalid_output"),
    "H27k the context itself": (lambda context: context, D, "job.invalid_output"),
    "H27l an exception class": (lambda _: ValueError, D, "job.invalid_output"),
    "H28 a failure of a blank code": (raises(JobFailure.retryable(" ", "x")), F, "job.invalid_failure_code"),
    "H28b a failure of a code with NUL": (raises(JobFailure.terminal("a\0", "x")), D, "job.invalid_failure_code"),
    "H28c a failure of a long code": (raises(JobFailure.terminal("c" * 10_000, "x")), D, "job.invalid_failure_code"),
    "H28d a failure that waits for ever": (raises(JobFailure.retryable("a.b", "x", float("inf"))), F, "a.b"),
    "H28e a failure that waits a negative time": (raises(JobFailure.retryable("a.b", "x", -1)), F, "a.b"),
    "H29 more done than there is": (says(lambda one: one.progress(2, 1)), D, "job.invalid_progress"),
    "H29b a negative progress": (says(lambda one: one.progress(-1)), D, "job.invalid_progress"),
    "H29c a progress of 2^63": (says(lambda one: one.progress(2**63)), D, "job.invalid_progress"),
    "H29d a progress of text": (says(lambda one: one.progress("half")), D, "job.invalid_progress"),  # type: ignore[arg-type]
    "H29e a checkpoint of NaN": (says(lambda one: one.save_checkpoint(float("nan"))), D, "job.invalid_checkpoint"),
    "H29f a checkpoint of a megabyte": (
        says(lambda one: one.save_checkpoint("x" * 2**20)),
        D,
        "job.invalid_checkpoint",
    ),
    "H29g a log line of NUL": (says(lambda one: one.log("INFO", "a\0b", field="\ud800")), OK, None),
    "H29h a log line of a megabyte": (says(lambda one: one.log("INFO", "x" * 2**20)), OK, None),
    "H29i a log field that is no JSON": (says(lambda one: one.log("INFO", "x", a=object())), OK, None),  # type: ignore[arg-type]
    "H29j a log level of no kind": (says(lambda one: one.log("LOUD", "x")), F, None),
    "H31 a snooze returned as a class": (lambda _: Snooze, D, "job.invalid_output"),
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("name", ENDS)
def test_a_hostile_end_is_the_end_of_its_own_attempt_only(
    make_bench: MakeBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str
) -> None:
    handler, status, code = ENDS[name]
    monkeypatch.chdir(tmp_path)
    catalog = JobCatalog(retry=RetryPolicy(base_seconds=60, factor=1, jitter=False))

    @catalog.job("test")
    def test(context: JobContext, payload: Any) -> Any:
        return handler(context)

    @catalog.job("next")
    def following(context: JobContext, payload: Any) -> str:
        return "as if nothing had been"

    bench = make_bench(catalog)
    with _world_kept():
        job_id = bench.run("test")
        following_id = bench.run("next")

    job, [attempt] = bench.job(job_id), bench.attempts(job_id)
    assert job.status is status
    assert code is None or attempt.error_code == code
    assert attempt.outcome is OUTCOMES[status]
    assert len((attempt.error_message or "").encode()) <= 2_048
    assert len((attempt.error_code or "").encode()) <= 200
    assert len((attempt.traceback or "").encode()) <= 16_384
    assert bench.job(following_id).output == "as if nothing had been"
    assert bench.scalar("SELECT count(*) FROM runledger.job_leases") == 0


@contextlib.contextmanager
def _world_kept() -> Any:
    limit, context = sys.getrecursionlimit(), decimal.getcontext().copy()
    with warnings.catch_warnings():
        yield
    sys.setrecursionlimit(limit)
    decimal.setcontext(context)
    os.environ.pop("HOSTILE", None)
