"""The protocol between the driver and a peer: ``python -P <peer>.py ACTION``, the answer as JSON on the last line.

Runs in the peer's own Python: standard library only. Every action has a time limit and tells what it got done.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.peers import board

PAYLOAD: dict[str, Any] = {"order_id": 123_456, "email": "someone@example.org", "note": "x" * 40}
"""100 bytes as JSON."""

CHUNK = 5_000
"""Jobs of one bulk enqueue."""

LATENCY_GAP_SECONDS = 0.05
POLL_SECONDS = 0.000_2
START_SECONDS = 50.0
FEED_GAP_SECONDS = 0.01


class Adapter:
    """What a peer can do. ``open`` comes before the first enqueue; ``work`` runs jobs until its process is ended."""

    def __init__(self, url: str) -> None:
        self.url = url

    def setup(self) -> None:
        """The schema exists."""

    def open(self) -> None:
        """Ready to enqueue over one warm connection."""

    def one(self) -> None:
        """One job, committed."""
        raise NotImplementedError

    def many(self, count: int) -> None:
        """``count`` jobs by the fastest way there is."""
        for _ in range(count):
            self.one()

    def chains(self, count: int) -> None:
        """``count`` workflows of ten steps, one after the other."""
        raise NotImplementedError

    def work(self, concurrency: int) -> None:
        """Runs jobs, up to ``concurrency`` of them at once in this process, until it is ended."""
        raise NotImplementedError


def main(kind: type[Adapter]) -> None:
    options = _options()
    adapter = kind(options.url)
    if options.action == "setup":
        adapter.setup()
        return
    if options.action == "work":
        adapter.work(options.concurrency)
        return
    adapter.open()
    adapter.one()  # plans, caches, imports
    print(json.dumps(_MEASURED[options.action](adapter, options)), flush=True)
    os._exit(0)  # some peers leave threads behind that wait for long


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=["setup", "work", *_MEASURED])
    parser.add_argument("--url", required=True)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrency", type=int, default=1)
    return parser.parse_args()


def _repeat(step: Callable[[int], None], count: int, seconds: float, size: int) -> dict[str, float]:
    done, began = 0, time.monotonic()
    while done < count and time.monotonic() - began < seconds:
        step(min(size, count - done))
        done += min(size, count - done)
    return {"count": done, "seconds": time.monotonic() - began}


def _one(adapter: Adapter, options: argparse.Namespace) -> dict[str, float]:
    return _repeat(lambda _: adapter.one(), options.count, options.seconds, 1)


def _many(adapter: Adapter, options: argparse.Namespace) -> dict[str, float]:
    return _repeat(adapter.many, options.count, options.seconds, min(CHUNK, max(1, options.count // 8)))


def _chains(adapter: Adapter, options: argparse.Namespace) -> dict[str, float]:
    return _repeat(adapter.chains, options.count, options.seconds, max(1, options.count // 10))


def _latency(adapter: Adapter, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds from the call that enqueues to the first act of the handler, one job at a time, all else idle."""
    directory = os.environ[board.DIRECTORY_VARIABLE]
    found: list[float] = []
    _wait_for(directory, 1, time.monotonic() + START_SECONDS)
    began = time.monotonic()
    while len(found) < options.count and time.monotonic() - began < options.seconds:
        time.sleep(LATENCY_GAP_SECONDS)
        before = board.read(directory).begun
        sent = time.monotonic_ns()
        adapter.one()
        found.append((_wait_for(directory, before + 1, time.monotonic() + 10) - sent) / 1e6)
    found.sort()
    return {
        "count": len(found),
        "p50": statistics.median(found),
        "p95": found[min(len(found) - 1, round(len(found) * 0.95))],
    }


def _wait_for(directory: str, begun: int, deadline: float) -> int:
    while (state := board.read(directory)).begun < begun:
        if time.monotonic() > deadline:
            raise SystemExit("no worker started the job")
        time.sleep(POLL_SECONDS)
    return state.last_ns


def _feed(adapter: Adapter, options: argparse.Namespace) -> dict[str, float]:
    """``count`` jobs a second, evenly, each with the time at which it was sent."""
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < options.seconds:
        due = int(passed * options.count) - done
        if due > 0:
            PAYLOAD[board.SENT] = time.monotonic_ns()
            adapter.many(due)
            done += due
        time.sleep(FEED_GAP_SECONDS)
    return {"count": done, "seconds": passed}


_MEASURED = {"one": _one, "many": _many, "chains": _chains, "latency": _latency, "feed": _feed}
