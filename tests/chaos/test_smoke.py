"""A small soak in every run of the tests, and the proof that it can fail: once a host is built without one of the
checks that everything rests on."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from chaos.app import CREATE_EFFECTS, GATED_EFFECT
from chaos.app import catalog as chaos_catalog
from chaos.hosts import ENVIRONMENT, SCRIPT
from chaos.invariants import ALWAYS, broken
from chaos.nemesis import Fault, Kind, Role, plan
from chaos.soak import Plan, soak
from runtime.crashing import or_skipped
from runtime.hosts import Desk, Host, until
from runtime.pooler import find_pgbouncer
from runtime.standby import replicated_server

from runledger.postgres.definitions import sync_definitions
from runledger.testing import databases

SMOKE_SEED = 31056
"""Fifteen actions of eight kinds: among them a crash of the server, a failover, a killed pooler, a network that cuts
answers, and a worker stopped beyond its lease."""
SMOKE_KINDS = {Kind.KILL, Kind.TERM, Kind.STOP, Kind.CRASH, Kind.FAILOVER, Kind.POOLER, Kind.NETWORK, Kind.TERMINATE}


@pytest.fixture
def own_database(server_url: str, database_template: str) -> Iterator[str]:
    with databases.ephemeral_database(server_url, database_template) as url:
        yield url


@pytest.mark.process
def test_nothing_is_lost_or_done_twice_whatever_is_broken(tmp_path: Path) -> None:
    wanted = Plan(SMOKE_SEED, kills=8, mean_pause_seconds=0.7, check_every_seconds=2.0)
    with or_skipped(replicated_server()) as server:
        report = soak(server, tmp_path, wanted)

    print(f"\n{report.line()}")
    assert report.violations == []
    assert {one.kind for one in report.actions} == SMOKE_KINDS
    assert len(report.promotion_seconds) == len(report.sync_seconds) == 1
    assert report.pooler_restarts == (None if find_pgbouncer() is None else 1)
    assert report.reruns > 0, "nobody was killed at work; the soak proves nothing"
    assert min(report.dead, report.cancelled, report.runs, report.firings, report.snapshots) > 0
    assert report.succeeded > 500


def test_a_seed_says_what_the_nemesis_does() -> None:
    def planned(seed: int) -> list[object]:
        return list(plan(seed, hosts=2, kills=2_000, mean_pause_seconds=2.5))

    first = plan(7, hosts=2, kills=2_000, mean_pause_seconds=2.5)

    assert planned(7) == first
    assert planned(8) != first
    assert sum(one.kind is Kind.KILL for one in first) == 2_000
    assert {one.kind for one in first} == set(Kind)
    assert {one.role for one in first if one.kind is Kind.KILL} == set(Role)
    assert {one.what for one in first if one.kind is Kind.NETWORK} == set(Fault)


def test_failovers_and_poolers_change_nothing_else_that_a_seed_says(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = plan(7, hosts=2, kills=300, mean_pause_seconds=1.5)
    monkeypatch.setattr("chaos.nemesis.SERVER_CHANCES", {})

    without = plan(7, hosts=2, kills=300, mean_pause_seconds=1.5)

    assert len(without) < len(whole)
    assert [one for one in whole if one.kind not in (Kind.FAILOVER, Kind.POOLER)] == without


@pytest.mark.process
@pytest.mark.parametrize(
    ("mutant", "broken_rules"),
    [(None, []), ("settle-without-token", ["an effect does not belong to an attempt that succeeded"])],
)
def test_a_late_worker_is_told_from_the_holder_of_the_lease_only_by_its_token(
    own_database: str, tmp_path: Path, mutant: str | None, broken_rules: list[str]
) -> None:
    desk = Desk(own_database, tmp_path)
    desk.connection.execute(CREATE_EFFECTS)
    sync_definitions(desk.connection, chaos_catalog.definitions)
    gate = desk.gate()
    job_id = desk.one(GATED_EFFECT, gate=str(gate))
    environment = ENVIRONMENT | {"JOBS_TIMEOUT_GRACE_SECONDS": "60"}  # or the late worker is killed before it wakes
    environment |= {"CHAOS_MUTANT": mutant} if mutant else {}
    host = Host(own_database, tmp_path, environment, {"app": "chaos.app:catalog", "script": str(SCRIPT)})
    try:
        late = _pid_in(Path(f"{gate}.1.begun"))
        os.kill(late, signal.SIGSTOP)
        desk.age_leases(120)
        desk.connection.execute("UPDATE runledger.job_queue SET created_at = created_at - interval '1 hour'")
        desk.wait_for_attempt(job_id, "LEASE_EXPIRED")
        _pid_in(Path(f"{gate}.2.begun"))
        host.wait_for_event("job.interrupted")
        os.kill(late, signal.SIGCONT)
        Path(f"{gate}.1").touch()
        until(lambda: _is_told_off(host) or _effects(desk) > 0, what="the end of the late worker")
        Path(f"{gate}.2").touch()
        desk.wait_for_end(job_id)
        until(lambda: _effects(desk) == 1, what="the effect")
        assert host.stop() == 0

        found = broken(desk.connection, ALWAYS)

        assert [violation.partition(":")[0] for violation in found] == broken_rules
    finally:
        host.end()
        desk.close()


def _pid_in(path: Path) -> int:
    return int(until(lambda: path.exists() and path.read_text(), what=f"the beginning of {path.name}"))


def _is_told_off(host: Host) -> bool:
    return bool(host.events("job.attempt_void") or host.events("job.lease_lost"))


def _effects(desk: Desk) -> int:
    return int(desk.scalar("SELECT count(*) FROM chaos_effects"))
