"""``make chaos``: hosts under load, a nemesis that kills them, and a check that nothing was lost or done twice.

    python -m chaos.kill_soak --kills 200 --seed 1

ends with one line of figures and status 0, or with the broken rules and status 1. The same seed gives the same
sequence of actions; when exactly each one hits is up to the machine.
"""

import argparse
import collections
import contextlib
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from chaos.app import CREATE_EFFECTS, catalog
from chaos.hosts import Place
from chaos.invariants import violations
from chaos.load import Load, RecoveryWatch
from chaos.mutants import MUTANTS
from chaos.nemesis import HOSTS, SLOTS, Action, Kind, Role, plan
from runtime.hosts import until

from runledger.database import migrate
from runledger.postgres.definitions import sync_definitions
from runledger.testing import databases, server_choice

DRAIN_SECONDS = 120.0
UNFINISHED = "SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"
RERUNS = """
    SELECT count(*) FROM runledger.job_attempts
    WHERE outcome IN ('PANICKED', 'LEASE_EXPIRED', 'TIMEOUT') OR error_code = 'job.outcome_lost'
"""
COUNTS = "SELECT count(*), count(*) FILTER (WHERE final_status = 'SUCCEEDED') FROM runledger.job_queue"


@dataclass(slots=True)
class Report:
    """What a soak did and what it found. ``violations`` is empty when all is well."""

    seed: int
    actions: list[Action]
    jobs: int = 0
    succeeded: int = 0
    reruns: int = 0
    seconds: float = 0.0
    drain_seconds: float = 0.0
    recovery_seconds: list[float] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def line(self) -> str:
        kills = collections.Counter(one.role.value for one in self.actions if one.kind is Kind.KILL)
        others = collections.Counter(one.kind.value for one in self.actions if one.kind is not Kind.KILL)
        by_role = ", ".join(f"{count} {role}" for role, count in sorted(kills.items()))
        median = statistics.median(self.recovery_seconds) if self.recovery_seconds else float("nan")
        longest = max(self.recovery_seconds, default=float("nan"))
        return (
            f"soak seed={self.seed} jobs={self.jobs} succeeded={self.succeeded} kills={kills.total()} ({by_role})"
            f" term={others['TERM']} stop={others['STOP']} recovery_p50={median:.3f}s recovery_max={longest:.2f}s"
            f" reruns={self.reruns} drained_in={self.drain_seconds:.1f}s took={self.seconds:.0f}s"
            f" violations={len(self.violations)}"
        )


def soak(
    url: str, directory: Path, *, seed: int, kills: int, mean_pause_seconds: float, mutant: str | None = None
) -> Report:
    """Runs one soak on an empty migrated database. No process that it started is left, however it ends."""
    report = Report(seed, plan(seed, kills=kills, mean_pause_seconds=mean_pause_seconds))
    began_at = time.monotonic()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(CREATE_EFFECTS)
        sync_definitions(connection, catalog.definitions)
        load, watch = Load(url, seed), RecoveryWatch(url)
        with _hosts(url, directory, mutant) as places, _running(load), _running(watch):
            _attack(report.actions, places, watch)
            for place in places:
                place.heal()
            load.stop()
            _drain(connection, report)
            with contextlib.suppress(AssertionError):  # who has not recovered is named below
                until(lambda: not watch.unrecovered, within=DRAIN_SECONDS, what="the recovery of the last")
            watch.stop()
            for place in places:
                place.retire()
        report.violations += [complaint for place in places for complaint in place.complaints]
        report.violations += [f"the slot of {worker} never recovered" for worker in watch.unrecovered]
        report.violations += [f"the load failed: {load.failure!r}"] if load.failure else []
        report.violations += violations(connection, load.acknowledged)
        report.recovery_seconds = watch.seconds
        report.seconds = time.monotonic() - began_at
        _count(connection, report)
    return report


@contextlib.contextmanager
def _hosts(url: str, directory: Path, mutant: str | None) -> Iterator[list[Place]]:
    """All of them are ready; none is left afterwards."""
    places: list[Place] = []
    try:
        places.extend(Place(index, url, directory, mutant) for index in range(HOSTS))
        for place in places:
            place.host.ready(SLOTS)
        yield places
    finally:
        for place in places:
            place.end()


@contextlib.contextmanager
def _running(thread: Load | RecoveryWatch) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        thread.stop()


def _attack(actions: list[Action], places: list[Place], watch: RecoveryWatch) -> None:
    pause = threading.Event()
    began_at = time.monotonic()
    for action in actions:
        place = places[action.host]
        pid = place.pid_of(action.role, action.slot)
        print(f"{time.monotonic() - began_at:7.2f} {action} ({pid})", file=sys.stderr, flush=True)
        worker_id = place.tail.worker_ids.get(pid)
        if action.kind is Kind.KILL and action.role is Role.WORKER and worker_id is not None:
            watch.killed(worker_id, place, action.slot)
        place.suffer(action, pid)
        pause.wait(action.pause_seconds)


def _drain(connection: psycopg.Connection[tuple[int, ...]], report: Report) -> None:
    """Returns when every job has ended; how long that took is reported."""
    began_at = time.monotonic()

    def is_empty() -> bool:
        row = connection.execute(UNFINISHED).fetchone()
        return row is not None and row[0] == 0

    try:
        until(is_empty, within=DRAIN_SECONDS, what="the end of all jobs")
    except AssertionError as error:
        report.violations.append(str(error))
    report.drain_seconds = time.monotonic() - began_at


def _count(connection: psycopg.Connection[tuple[int, ...]], report: Report) -> None:
    row = connection.execute(COUNTS).fetchone()
    reruns = connection.execute(RERUNS).fetchone()
    assert row is not None
    assert reruns is not None
    report.jobs, report.succeeded = row
    report.reruns = reruns[0]


def main() -> int:
    options = _options()
    directory = Path(tempfile.mkdtemp(prefix="rl-soak-"))
    with server_choice.test_server() as server, databases.ephemeral_database(server, prefix="soak") as url:
        migrate(url)
        report = soak(
            url,
            directory,
            seed=options.seed,
            kills=options.kills,
            mean_pause_seconds=options.pause_seconds,
            mutant=options.mutant,
        )
    print(report.line())
    for violation in report.violations:
        print(f"  {violation}")
    if report.violations:
        print(f"  logs: {directory}")
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos.kill_soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--pause-seconds", type=float, default=2.5, help="mean pause between two actions")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this fault first; the soak has to fail")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
