"""One round of one peer: enqueue one and many, drain, jobs of 1 ms, pick-up on an idle queue, chains where it can."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.ground import count_statements, statement_calls, wal_position
from benchmarks.peers import board, install, processes
from benchmarks.peers.registry import OURS, Peer
from runledger.testing.databases import ephemeral_database

TESTS = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
ACTION_SECONDS = 60.0
POLL_SECONDS = 0.005
SERVER_PID = "SELECT pg_backend_pid()"

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the cells are; ``share`` scales the jobs of a drain, and every cell ends after ``seconds``."""

    singles: int = 400
    share: float = 1.0
    slow_jobs: int = 6_000
    samples: int = 60
    chains: int = 300
    seconds: float = 8.0


@dataclass(frozen=True, slots=True)
class Place:
    """A fresh database of a peer, its schema made, and an empty Redis where it needs one."""

    peer: Peer
    url: str
    redis: tuple[str, int] | None
    sizes: Sizes

    def act(self, action: str, count: int, directory: str = "") -> dict[str, Any]:
        """What the adapter answers."""
        words = [*install.command(self.peer), action, "--url", self.url, "--count", str(count)]
        done = subprocess.run(
            [*words, "--seconds", str(self.sizes.seconds)],
            env=self.environment(directory, 0),
            capture_output=True,
            text=True,
            timeout=ACTION_SECONDS,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise RuntimeError(f"{self.peer.name} {action}: {(done.stderr or done.stdout)[-600:]}")
        return {} if action == "setup" else json.loads(done.stdout.splitlines()[-1])

    def environment(self, directory: str, work_ms: float) -> dict[str, str]:
        bench = {board.DIRECTORY_VARIABLE: directory, board.WORK_VARIABLE: str(work_ms), "PYTHONPATH": str(TESTS)}
        if self.peer is OURS:
            bench["PYTHONPATH"] += os.pathsep + str(TESTS.parent)
        if self.peer.is_node:
            bench["NODE_PATH"] = str(install.HOME / self.peer.name / "node_modules")
        if self.redis is not None:
            bench["BENCH_REDIS_URL"] = self.redis[0]
        path = os.pathsep.join([str(Path(install.command(self.peer)[0]).parent), os.environ["PATH"]])
        return os.environ | {"PATH": path} | bench

    @contextlib.contextmanager
    def workers(self, count: int, concurrency: int, *, work_ms: float = 0) -> Iterator[tuple[list[int], str]]:
        """Process ids of the workers, and the directory of the board on which they count."""
        words = [*install.command(self.peer), "work", "--url", self.url, "--concurrency", str(concurrency)]
        with tempfile.TemporaryDirectory(prefix="bench-board-") as home:
            directory = Path(home) / "board"
            directory.mkdir()
            environment = self.environment(str(directory), work_ms)
            with processes.running([words] * count, environment, _log_beside(str(directory))) as roots:
                yield roots, str(directory)

    def unfinished(self) -> int:
        """Jobs that have not ended, in the peer's own tables; 0 where there are none."""
        if self.peer.unfinished is None:
            return 0
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(self.peer.unfinished).fetchone()
        assert row is not None
        return int(row[0])

    def server_roots(self) -> list[int]:
        """The process of the server that holds the jobs; empty where it runs out of sight."""
        if self.redis is not None:
            return [self.redis[1]]
        with psycopg.connect(self.url) as connection:
            row = connection.execute(SERVER_PID).fetchone()
            assert row is not None
            return processes.parents_of(int(row[0]))


def measured_round(peer: Peer, server_url: str, redis: tuple[str, int] | None, sizes: Sizes) -> Figures:
    """Every figure of one round. Raises RuntimeError, with the peer's own words, when a cell does not run."""
    figures: Figures = {}
    with fresh_place(peer, server_url, redis, sizes) as place:
        figures |= _enqueues(place)
        figures |= _drain(place)
    with fresh_place(peer, server_url, redis, replace(sizes, share=sizes.share * sizes.slow_jobs / peer.jobs)) as place:
        figures |= _slow(place)
    with fresh_place(peer, server_url, redis, sizes) as place:
        figures |= _pick_up(place)
    if peer.has_chains:
        with fresh_place(peer, server_url, redis, sizes) as place:
            figures |= _chains(place)
    return figures


@contextlib.contextmanager
def fresh_place(peer: Peer, server_url: str, redis: tuple[str, int] | None, sizes: Sizes) -> Iterator[Place]:
    """An empty database with the peer's schema, gone after the block."""
    used = redis if peer.needs_redis else None
    if used is not None:
        subprocess.run(["redis-cli", "-u", used[0], "flushall"], check=True, stdout=subprocess.DEVNULL)
    with ephemeral_database(server_url, prefix="peer") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            count_statements(connection)
        place = Place(peer, url, used, sizes)
        place.act("setup", 1)
        yield place


def _enqueues(place: Place) -> Figures:
    wal = wal_position(place.url)
    one = place.act("one", place.sizes.singles)
    between = wal_position(place.url)
    many = place.act("many", max(8, int(place.peer.jobs * place.sizes.share)))
    figures = {"enqueue one /s": one["count"] / one["seconds"], "enqueue many /s": many["count"] / many["seconds"]}
    if place.redis is None:
        figures["WAL enqueue one B"] = (between - wal) / (one["count"] + 1)
        figures["WAL enqueue many B"] = (wal_position(place.url) - between) / (many["count"] + 1)
    return figures | {"_waiting": one["count"] + many["count"] + 2}


def _drain(place: Place) -> Figures:
    waiting = place.unfinished() or int(place.peer.jobs * place.sizes.share)
    server = place.server_roots()
    wal, calls, server_cpu = wal_position(place.url), statement_calls(place.url), processes.cpu_seconds(server)
    with place.workers(place.peer.processes, place.peer.concurrency) as (roots, directory):
        started = wait_for_first(place, directory)
        client_cpu = processes.cpu_seconds(roots)
        done, seconds = _run(place, directory, waiting, started)
        figures = {
            "drain jobs/s": done / seconds,
            "drain client µs/job": (processes.cpu_seconds(roots) - client_cpu) / done * 1e6,
            **processes.memory_mb(roots),
        }
    figures["drain server µs/job"] = (processes.cpu_seconds(server) - server_cpu) / done * 1e6
    if place.redis is None:
        figures["WAL drain B/job"] = (wal_position(place.url) - wal) / done
        if calls is not None:
            figures["statements/job"] = ((statement_calls(place.url) or 0) - calls) / done
    return figures


def _slow(place: Place) -> Figures:
    """Jobs of 1 ms, sixteen at once, after the first fifth: sixteen processes do not start as quickly as two."""
    place.act("many", max(8, int(place.peer.jobs * place.sizes.share)))
    waiting, server = place.unfinished() or int(place.peer.jobs * place.sizes.share), place.server_roots()
    with place.workers(place.peer.slow_processes, place.peer.slow_concurrency, work_ms=1) as (roots, directory):
        wait_for_first(place, directory)
        started, before = _warm_up(place, directory, waiting)
        client, held = processes.cpu_seconds(roots), processes.cpu_seconds(server)
        done, seconds = _run(place, directory, waiting, started)
        done = max(1, done - before)
        return {
            "1 ms jobs/s": done / seconds,
            "1 ms client µs/job": (processes.cpu_seconds(roots) - client) / done * 1e6,
            "1 ms server µs/job": (processes.cpu_seconds(server) - held) / done * 1e6,
        }


def _pick_up(place: Place) -> Figures:
    with place.workers(place.peer.processes, place.peer.concurrency) as (_, directory):
        answer = place.act("latency", place.sizes.samples, directory)
    return {"pick-up p50 ms": answer["p50"], "pick-up p95 ms": answer["p95"]}


def _chains(place: Place) -> Figures:
    """Workflows of ten steps that follow each other, all waiting when the workers start."""
    asked = place.act("chains", place.sizes.chains)
    steps = asked["count"] * 10
    with place.workers(place.peer.processes, place.peer.concurrency) as (_, directory):
        started = wait_for_first(place, directory)
        done, seconds = _run(place, directory, steps, started)
    return {"workflow steps/s": done / seconds, "enqueue chains /s": asked["count"] / asked["seconds"]}


def wait_for_first(place: Place, directory: str) -> float:
    """Monotonic time of the first job, so that nobody's start is counted."""
    deadline = time.monotonic() + START_SECONDS
    while not (state := board.read(directory)).begun:
        if time.monotonic() > deadline:
            log = _log_beside(directory).read_text()[-600:]
            raise RuntimeError(f"{place.peer.name}: no job began within {START_SECONDS:.0f} seconds: {log}")
        time.sleep(POLL_SECONDS / 5)
    return state.first_ns / 1e9


def _log_beside(directory: str) -> Path:
    return Path(directory).with_name("workers.log")


def _warm_up(place: Place, directory: str, waiting: int) -> tuple[float, int]:
    """Monotonic time, and jobs begun, when a fifth of the jobs has begun, or after twice the time of a cell."""
    deadline = time.monotonic() + 2 * place.sizes.seconds
    while (begun := board.read(directory).begun) < waiting / 5 and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return time.monotonic(), begun


def _run(place: Place, directory: str, waiting: int, started: float) -> tuple[int, float]:
    """Jobs done and seconds since ``started``, when all have begun and ended, or the cell's time is up."""
    deadline = started + place.sizes.seconds
    while (state := board.read(directory)).begun < waiting:
        if time.monotonic() > deadline:
            return state.begun, time.monotonic() - started
        time.sleep(POLL_SECONDS)
    if place.peer.unfinished is None:
        return state.begun, state.last_ns / 1e9 - started
    while place.unfinished():
        if time.monotonic() > deadline + place.sizes.seconds:
            raise RuntimeError(f"{place.peer.name}: every job has begun, and not every one has ended")
        time.sleep(POLL_SECONDS)
    return waiting, time.monotonic() - started
