"""Every pair of operations on the same job, run, key or schedule, in every order of their statements: the rules hold,
nobody waits for ever, and what both were told is what they would have been told one after the other.
"""

import os
from collections.abc import Iterator
from itertools import combinations_with_replacement
from typing import Any

import psycopg
import pytest
from chaos.app import CREATE_EFFECTS
from chaos.invariants import ALWAYS
from interleavings.scenes import SCENES, TYPE, Scene
from interleavings.stepping import Connection, Operation, every_order, interleave

from runledger.postgres.tables import metadata
from runledger.testing.factories import a_definition

MOST_ORDERS = 500 if os.environ.get("RUNLEDGER_EVERY_FAULT") else 8
"""Of one pair; ``make faults`` asks for all of them."""

NOTHING = "nothing"
TRY_AGAIN = ("job.concurrent_change", "workflow.release_conflict", "db.lock_not_available")
"""Told to a caller whose transaction has done nothing, because another was at it in the same moment."""

EMPTY = "; ".join(
    f"DELETE FROM {table.fullname}"
    for table in reversed(metadata.sorted_tables)
    if not table.info.get("is_view") and table.name != "runledger_migration_history"
)
LOOK = """
    SELECT 'job', job_type, stage, status::text, run_number, attempt, next_run_at > now(), checkpoint IS NOT NULL,
           (SELECT array_agg(a.outcome::text ORDER BY a.lease_token) FROM runledger.job_attempts a
            WHERE a.job_id = j.id),
           (SELECT array_agg(e.event_type::text ORDER BY e.id) FROM runledger.job_events e WHERE e.job_id = j.id),
           (SELECT count(*) FROM runledger.job_dead_letters d WHERE d.job_id = j.id),
           (SELECT s.step_key FROM runledger.workflow_steps s WHERE s.job_id = j.id), schedule_id IS NULL
    FROM runledger.jobs j ORDER BY 1, 2, 12, 3, 4, 5, 6, 7
"""
LOOK_AT_RUNS = """
    SELECT r.status::text, (SELECT array_agg((s.step_key, s.status)::text ORDER BY s.step_key)
                            FROM runledger.workflow_steps s WHERE s.workflow_run_id = r.id)
    FROM runledger.workflow_runs r
"""
LOOK_AT_SCHEDULES = "SELECT is_active, cron_expr, next_slot_at > now() FROM runledger.job_schedules"
LOOK_AT_EFFECTS = "SELECT count(*) FROM chaos_effects"
RULES = " UNION ALL ".join(
    f"SELECT $rule${sentence}$rule$ FROM (SELECT FROM ({query}) AS q LIMIT 1) AS found"
    for sentence, query in ALWAYS.items()
)
PAIRS = [
    pytest.param(name, pair, id=f"{name}: {pair[0]} × {pair[1]}")
    for name, scene in SCENES.items()
    for pair in combinations_with_replacement(scene.deeds, 2)
]
Outcome = tuple[Any, Any, Any]


@pytest.fixture(scope="module")
def connections(database_url: str) -> Iterator[tuple[Connection, tuple[Connection, Connection]]]:
    """A watcher, and two for the callers, whose deadlocks are found at once."""
    with (
        psycopg.connect(database_url, autocommit=True) as watcher,
        psycopg.connect(database_url) as one,
        psycopg.connect(database_url) as other,
    ):
        watcher.execute(CREATE_EFFECTS)
        for driver in (one, other):
            driver.execute("SET deadlock_timeout = '20ms'")
            driver.commit()
        yield watcher, (one, other)


def prepared(scene: Scene, watcher: Connection) -> Any:
    watcher.execute(f"{EMPTY}; DELETE FROM chaos_effects")
    a_definition(watcher, TYPE)
    return scene.arrange(watcher)


def look(watcher: Connection) -> Any:
    queries = (LOOK, LOOK_AT_RUNS, LOOK_AT_SCHEDULES, LOOK_AT_EFFECTS)
    return repr([watcher.execute(query).fetchall() for query in queries])


def one_after_the_other(
    scene: Scene, names: tuple[str, ...], watcher: Connection, drivers: tuple[Connection, Connection]
) -> tuple[dict[int, Any], Any]:
    """What each was told, by its place in ``names``, when the one ended before the other began; and what it left."""
    subject = prepared(scene, watcher)
    told: dict[int, Any] = {}
    for place, name in enumerate(names):
        answers, *_ = interleave(drivers, (bound(scene, name, subject), lambda _: None), watcher, [0] * 100)
        told[place] = answers[0]
    return told, look(watcher)


def bound(scene: Scene, name: str, subject: Any) -> Operation:
    return lambda ledger: scene.deeds[name](ledger, subject)


def serial_outcomes(
    scene: Scene, pair: tuple[str, str], watcher: Connection, drivers: tuple[Connection, Connection]
) -> set[Outcome]:
    """One before the other, in both orders; and each alone, as the other found everything locked and did nothing."""
    first, second = pair
    forth, forth_left = one_after_the_other(scene, (first, second), watcher, drivers)
    back, back_left = one_after_the_other(scene, (second, first), watcher, drivers)
    alone, alone_left = one_after_the_other(scene, (first,), watcher, drivers)
    other, other_left = one_after_the_other(scene, (second,), watcher, drivers)
    return {
        (forth[0], forth[1], forth_left),
        (back[1], back[0], back_left),
        (alone[0], NOTHING, alone_left),
        (NOTHING, other[0], other_left),
    }


@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_two_at_once_are_one_after_the_other(connections: Any, name: str, pair: tuple[str, str]) -> None:
    watcher, drivers = connections
    scene = SCENES[name]
    allowed = serial_outcomes(scene, pair, watcher, drivers)
    broken: list[Any] = []
    seen: set[Outcome] = set()

    def run(order: list[int]) -> tuple[list[int], list[list[int]]]:
        subject = prepared(scene, watcher)
        operations = (bound(scene, pair[0], subject), bound(scene, pair[1], subject))
        (one, other), taken, choices = interleave(drivers, operations, watcher, order)
        one, other = (NOTHING if told in TRY_AGAIN else told for told in (one, other))
        outcome = (one, other, look(watcher))
        if outcome not in seen and (rules := watcher.execute(RULES).fetchall()):
            broken.append((taken, rules))
        seen.add(outcome)
        if outcome not in allowed:
            broken.append((taken, outcome, allowed))
        return taken, choices

    orders = list(every_order(run, most=MOST_ORDERS))

    assert broken == []
    assert len(orders) >= 2
