"""``make bench-churn``: steady work beside a transaction that stays open, and what that does to each system.

A feeder enqueues at a steady rate while two worker processes run the jobs. After a quiet start a snapshot is pinned,
held for two minutes (``make bench-long``: sixty) and let go. Every job tells how long it waited: from the call that
enqueued it to the first act of its handler. As dead rows pile up, a queue that steps over them at every claim gets
slower and slower.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from benchmarks.ground import durable_server
from benchmarks.peers import board, install, processes
from benchmarks.peers.measure import Place, Sizes, fresh_place, wait_for_first
from benchmarks.peers.registry import PEERS, Peer
from benchmarks.report import machine_line

OUTPUT = install.ROOT / "build" / "bench-churn.json"
RATES = {"runledger": 2_000, "pgqueuer": 2_000, "oban": 1_000, "procrastinate": 200}
"""Jobs per second, which each can sustain on two cores while nothing is pinned."""

QUIET_SECONDS = 15.0
STEP_SECONDS = 5.0
PIN = "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class"
DEAD = "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables"

Step = dict[str, Any]


def churn(peer: Peer, place: Place, seconds: float) -> list[Step]:
    """One step for each five seconds, with its phase: before, pinned, after."""
    steps: list[Step] = []
    with place.workers(peer.processes, peer.concurrency) as (_, directory), _feeder(place, RATES[peer.name], seconds):
        wait_for_first(place, directory)
        time.sleep(QUIET_SECONDS / 3)
        samples = board.Samples(directory)
        _watch(place, samples, "before", QUIET_SECONDS, steps)
        with psycopg.connect(place.url, autocommit=True) as pinned:
            pinned.execute(PIN)
            _watch(place, samples, "pinned", seconds, steps)
        _watch(place, samples, "after", QUIET_SECONDS, steps)
    return steps


def _watch(place: Place, samples: board.Samples, phase: str, seconds: float, steps: list[Step]) -> None:
    server, until = place.server_roots(), time.monotonic() + seconds
    samples.new()
    cpu, began = processes.cpu_seconds(server), time.monotonic_ns()
    while time.monotonic() < until:
        time.sleep(min(STEP_SECONDS, seconds))
        waits = sorted(wait / 1e6 for _, wait in samples.new())
        used, now = processes.cpu_seconds(server), time.monotonic_ns()
        done, took = len(waits), (now - began) / 1e9
        step: Step = {"phase": phase, "jobs/s": done / took, "dead rows": _dead_rows(place.url)}
        step["server µs/job"] = (used - cpu) / max(1, done) * 1e6
        if done > 1:
            step |= {"p50 ms": statistics.median(waits), "p95 ms": waits[int(done * 0.95)]}
        steps.append(step)
        print(step, file=sys.stderr, flush=True)
        cpu, began = used, now


@contextlib.contextmanager
def _feeder(place: Place, rate: int, seconds: float) -> Iterator[None]:
    words = [*install.command(place.peer), "feed", "--url", place.url, "--count", str(rate)]
    with subprocess.Popen(
        [*words, "--seconds", str(seconds + 4 * QUIET_SECONDS)],
        env=place.environment("", 0),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as feeder:
        try:
            yield
        finally:
            feeder.terminate()


def _dead_rows(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(DEAD).fetchone()
    assert row is not None
    return int(row[0])


def phases(steps: list[Step]) -> dict[str, dict[str, float]]:
    """Medians over the steps before, in the last quarter of the pinned time, and after."""
    pinned = [step for step in steps if step["phase"] == "pinned"]
    groups = {
        "before": [step for step in steps if step["phase"] == "before"],
        "pinned": pinned[-max(1, len(pinned) // 4) :],
        "after": [step for step in steps if step["phase"] == "after"][-2:],
    }
    measures = ("jobs/s", "p50 ms", "p95 ms", "server µs/job", "dead rows")
    return {
        name: {measure: statistics.median(step.get(measure, float("nan")) for step in group) for measure in measures}
        for name, group in groups.items()
        if group
    }


def table(found: dict[str, list[Step]]) -> str:
    titles = ("System", "fed /s", "phase", "run /s", "wait p50 ms", "p95 ms", "server CPU µs/job", "dead rows")
    rows = ["| " + " | ".join(titles) + " |", "| --- |" + " --- |" * (len(titles) - 1)]
    for name, steps in found.items():
        for phase, figures in phases(steps).items():
            cells = [f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in figures.values()]
            rows.append(f"| {name} | {RATES[name]:,} | {phase} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.churn", description=__doc__)
    parser.add_argument("--only", default=",".join(RATES), help="names, with commas between them")
    parser.add_argument("--rate", type=int, default=0, help="jobs per second for all; 0: what each can sustain")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the snapshot stays pinned")
    options = parser.parse_args()
    found: dict[str, list[Step]] = {}
    RATES.update({name: options.rate for name in RATES if options.rate})
    with durable_server() as server:
        print(machine := machine_line(server), flush=True)
        for peer in PEERS:
            if peer.name not in options.only.split(","):
                continue
            if (reason := install.ensure(peer)) is not None:
                print(f"{peer.name}: not installed: {reason}", flush=True)
                continue
            with fresh_place(peer, server, None, Sizes()) as place:
                found[peer.name] = churn(peer, place, options.seconds)
            print(table({peer.name: found[peer.name]}), flush=True)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps({"machine": machine, "steps": found}, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
