"""``make chaos``: hosts under load, a nemesis that breaks everything around them, and a check that nothing was lost or
done twice.

    python -m chaos.soak --kills 300 --seed 1

ends with one line of figures and status 0, or with the broken rules and status 1. The same seed gives the same
sequence of actions; when exactly each one hits is up to the machine.
"""

import argparse
import contextlib
import logging
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import psycopg
from chaos.app import BEGUN_FILE, CREATE_EFFECTS, catalog
from chaos.breakage import Breakage
from chaos.hosts import Place
from chaos.invariants import violations
from chaos.load import ENQUEUERS, JOBS_PER_SECOND, Enqueuer, Keys
from chaos.mutants import MUTANTS
from chaos.nemesis import SLOTS, Action, Kind, Role, plan
from chaos.operators import Operator
from chaos.proxy import Proxy
from chaos.report import Report
from chaos.testimony import applied_unknowns, begun_without_attempt, contradictions
from chaos.told import Witness
from chaos.watching import RecoveryWatch, RuleWatch
from runtime.hosts import until
from runtime.pooler import REMEDY, Pooler, find_pgbouncer, running_pooler
from runtime.standby import ReplicatedServer, replicated_server

from runledger.database import migrate
from runledger.postgres import copying
from runledger.postgres.definitions import sync_definitions
from runledger.postgres.schedules import sync_schedules

DRAIN_SECONDS = 240.0
COPIED_FROM = 6
"""Jobs of a batch that COPY carries, instead of a thousand: about half of the batches of the load."""

UNFINISHED = "SELECT count(*) FROM runledger.job_queue WHERE final_status IS NULL"
POOL_SIZE = 20
PROCESSES = (Kind.KILL, Kind.TERM, Kind.STOP)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a soak is to be."""

    seed: int
    kills: int
    hosts: int = 2
    mean_pause_seconds: float = 1.5
    jobs_per_second: float = JOBS_PER_SECOND
    check_every_seconds: float = 30.0
    mutant: str | None = None


class Running(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


def soak(server: ReplicatedServer, directory: Path, wanted: Plan) -> Report:
    """Runs one soak on an empty server. No process that it started is left, however it ends."""
    actions = plan(wanted.seed, hosts=wanted.hosts, kills=wanted.kills, mean_pause_seconds=wanted.mean_pause_seconds)
    report = Report(wanted.seed, actions)
    began_at = time.monotonic()
    migrate(server.url)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(CREATE_EFFECTS)
        sync_definitions(connection, catalog.definitions)
        sync_schedules(connection, catalog.schedules)
    witness = Witness(directory / "told.jsonl")
    with _pooler(server) as pooler, _networks(server, wanted.hosts, pooler) as networks:
        _run(server, directory, wanted, report, witness, networks, pooler)
    with psycopg.connect(server.url, autocommit=True) as connection:
        report.violations += violations(connection, witness.acknowledged)
        report.violations += contradictions(connection, witness)
        report.violations += begun_without_attempt(connection, directory / BEGUN_FILE)
        report.unknown_commits = witness.unknown_commits
        report.applied_unknowns = applied_unknowns(connection, witness)
        report.count(connection)
    report.seconds = time.monotonic() - began_at
    witness.close()
    return report


def _run(
    server: ReplicatedServer,
    directory: Path,
    wanted: Plan,
    report: Report,
    witness: Witness,
    networks: list[Proxy],
    pooler: Pooler | None,
) -> None:
    load = _load(networks, wanted, witness, is_pooled=pooler is not None)
    operator = Operator(networks[-1].url(), witness, wanted.seed)
    recovery, rules = RecoveryWatch(server.url), RuleWatch(server.url, wanted.check_every_seconds)
    breakage = Breakage(server, networks, pooler)
    with (
        _hosts(networks[:-1], directory, wanted.mutant) as places,
        patch.object(copying, "MINIMUM_ROWS", COPIED_FROM),
        _running(*load, operator, recovery, rules),
    ):
        _attack(report.actions, places, breakage, recovery)
        breakage.heal()
        for place in places:
            place.heal()
        for one in (*load, operator):
            one.stop()
        _drain(server, operator, report)
        with contextlib.suppress(AssertionError):  # who has not recovered is named below
            until(lambda: not recovery.unrecovered, within=60, what="the recovery of the last")
        recovery.stop()
        rules.stop()
        for place in places:
            place.retire()
    operator.close()
    _tell(report, server, breakage, recovery, rules)
    report.violations += [complaint for place in places for complaint in place.complaints]
    report.violations += [f"{one.name} failed: {one.failure!r}" for one in (*load, operator) if one.failure]


def _load(networks: list[Proxy], wanted: Plan, witness: Witness, *, is_pooled: bool) -> list[Enqueuer]:
    """Those who enqueue: over the network of the load, and over that of the last host, which may be pooled."""
    *_, of_last_host, own = networks
    ways = [(own.url(), False), (of_last_host.url(), is_pooled)]
    keys = Keys()
    return [
        Enqueuer(index, *ways[index % 2], witness, keys, seed=wanted.seed, jobs_per_second=wanted.jobs_per_second)
        for index in range(ENQUEUERS)
    ]


def _tell(
    report: Report, server: ReplicatedServer, breakage: Breakage, recovery: RecoveryWatch, rules: RuleWatch
) -> None:
    """What was measured and found while it ran."""
    report.promotion_seconds, report.sync_seconds = server.promotion_seconds, server.sync_seconds
    report.pooler_restarts = breakage.pooler_restarts
    report.recovery_seconds = recovery.seconds
    report.snapshots = rules.snapshots
    report.violations += rules.found
    report.violations += [f"the slot of {worker} never recovered" for worker in recovery.unrecovered]


@contextlib.contextmanager
def _pooler(server: ReplicatedServer) -> Iterator[Pooler | None]:
    """None where PgBouncer is not installed; the report says so."""
    program = find_pgbouncer()
    if program is None:
        print(f"pooler: none. {REMEDY}", file=sys.stderr, flush=True)
        yield None
        return
    with running_pooler(program, server.url, pool_size=POOL_SIZE) as made:
        yield made


@contextlib.contextmanager
def _networks(server: ReplicatedServer, hosts: int, pooler: Pooler | None) -> Iterator[list[Proxy]]:
    """One for each host, that of the last one in front of the pooler, and one for the load."""
    with contextlib.ExitStack() as stack:
        made = []
        for index in range(hosts + 1):
            made.append(Proxy(("127.0.0.1", pooler.port) if pooler and index == hosts - 1 else server.socket_path))
            stack.callback(made[-1].close)
        yield made


@contextlib.contextmanager
def _hosts(networks: list[Proxy], directory: Path, mutant: str | None) -> Iterator[list[Place]]:
    """All of them are ready; none is left afterwards."""
    places: list[Place] = []
    try:
        places.extend(Place(index, network.url(), directory, mutant) for index, network in enumerate(networks))
        for place in places:
            place.host.ready(SLOTS)
        yield places
    finally:
        for place in places:
            place.end()


@contextlib.contextmanager
def _running(*threads: Running) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.stop()


def _attack(actions: list[Action], places: list[Place], breakage: Breakage, recovery: RecoveryWatch) -> None:
    pause = threading.Event()
    began_at = time.monotonic()
    for action in actions:
        print(f"{time.monotonic() - began_at:8.2f} {action}", file=sys.stderr, flush=True)
        if action.kind is Kind.ROLL:
            for place in places:
                place.roll()
        elif action.kind in PROCESSES:
            _hit(action, places[action.host], recovery)
        else:
            breakage.do(action)
        pause.wait(action.pause_seconds)


def _hit(action: Action, place: Place, recovery: RecoveryWatch) -> None:
    assert action.role is not None, "a process has a role"
    pid = place.pid_of(action.role, action.slot)
    worker_id = place.tail.worker_ids.get(pid)
    if action.kind is Kind.KILL and action.role is Role.WORKER and worker_id is not None:
        recovery.killed(worker_id, place, action.slot)
    place.suffer(action, pid)


def _drain(server: ReplicatedServer, operator: Operator, report: Report) -> None:
    """Returns when every job has ended, schedules are off and every gate was passed; how long it took is reported."""
    began_at = time.monotonic()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("UPDATE runledger.job_schedules SET is_active = false")

        def is_empty() -> bool:
            row = connection.execute(UNFINISHED).fetchone()
            return row is not None and row[0] == 0 and operator.pass_all_gates()

        try:
            until(is_empty, within=DRAIN_SECONDS, what="the end of all jobs")
        except AssertionError as error:
            report.violations.append(str(error))
    report.drain_seconds = time.monotonic() - began_at


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left of what was started
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # says at length what the ledger knows
    directory = Path(tempfile.mkdtemp(prefix="rl-soak-", dir=options.directory))
    with replicated_server() as server:
        report = soak(
            server,
            directory,
            Plan(
                options.seed,
                options.kills,
                hosts=options.hosts,
                mean_pause_seconds=options.pause_seconds,
                jobs_per_second=options.jobs_per_second,
                check_every_seconds=options.check_every_seconds,
                mutant=options.mutant,
            ),
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
    parser = argparse.ArgumentParser(prog="chaos.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--hosts", type=int, default=2)
    parser.add_argument("--pause-seconds", type=float, default=1.5, help="mean pause between two actions")
    parser.add_argument("--jobs-per-second", type=float, default=JOBS_PER_SECOND)
    parser.add_argument("--check-every-seconds", type=float, default=30.0, help="pause between two looks at the rules")
    parser.add_argument("--directory", help="where logs and the ledger go; kept when a rule is broken")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant this fault first; the soak has to fail")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
