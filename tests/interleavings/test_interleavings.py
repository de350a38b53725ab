"""Every pair of operations on the same job, run, key or schedule, in every order of their statements, and a sample of
three at once: the rules hold, nobody waits for ever, and what all were told is what they would have been told one after
the other.
"""

import os
import random
from collections.abc import Iterator
from itertools import combinations_with_replacement, permutations
from typing import Any

import psycopg
import pytest
from chaos.app import CREATE_EFFECTS
from chaos.invariants import ALWAYS
from interleavings.scenes import SCENES, TYPE, Scene
from interleavings.stepping import Connection, Operation, every_order, interleave

from runledger.postgres.tables import metadata
from runledger.testing.factories import a_definition

IS_WHOLE = bool(os.environ.get("RUNLEDGER_EVERY_FAULT"))
MOST_ORDERS = 500 if IS_WHOLE else 8
"""Of one pair; ``make faults`` asks for all of them."""

TRIPLES_SAMPLED, ORDERS_SAMPLED = (120, 30) if IS_WHOLE else (8, 4)
LONGEST_ORDER = 60

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
ALL_TRIPLES = [
    (name, deeds) for name, scene in SCENES.items() for deeds in combinations_with_replacement(scene.deeds, 3)
]
TRIPLES = [
    pytest.param(name, deeds, id=f"{name}: {' × '.join(deeds)}")
    for name, deeds in random.Random(20261126).sample(ALL_TRIPLES, TRIPLES_SAMPLED)
]
Outcome = tuple[Any, ...]


@pytest.fixture(scope="module")
def connections(database_url: str) -> Iterator[tuple[Connection, tuple[Connection, ...]]]:
    """A watcher, and three for the callers, whose deadlocks are found at once."""
    with (
        psycopg.connect(database_url, autocommit=True) as watcher,
        psycopg.connect(database_url) as one,
        psycopg.connect(database_url) as other,
        psycopg.connect(database_url) as third,
    ):
        watcher.execute(CREATE_EFFECTS)
        for driver in (one, other, third):
            driver.execute("SET deadlock_timeout = '20ms'")
            driver.commit()
        yield watcher, (one, other, third)


def prepared(scene: Scene, watcher: Connection) -> Any:
    watcher.execute(f"{EMPTY}; DELETE FROM chaos_effects")
    a_definition(watcher, TYPE)
    return scene.arrange(watcher)


def look(watcher: Connection) -> Any:
    queries = (LOOK, LOOK_AT_RUNS, LOOK_AT_SCHEDULES, LOOK_AT_EFFECTS)
    return repr([watcher.execute(query).fetchall() for query in queries])


def one_after_the_other(
    scene: Scene, names: tuple[str, ...], places: tuple[int, ...], watcher: Connection, drivers: tuple[Connection, ...]
) -> Outcome:
    """What each was told when those at ``places`` of ``names`` ran in this order, each ended before the next began, and
    the others did nothing; and what they left."""
    subject = prepared(scene, watcher)
    told: list[Any] = [NOTHING] * len(names)
    for place in places:
        [answer], *_ = interleave(drivers, [bound(scene, names[place], subject)], watcher, [])
        told[place] = answer
    return (*told, look(watcher))


def bound(scene: Scene, name: str, subject: Any) -> Operation:
    return lambda ledger: scene.deeds[name](ledger, subject)


def serial_outcomes(
    scene: Scene, names: tuple[str, ...], watcher: Connection, drivers: tuple[Connection, ...]
) -> set[Outcome]:
    """One after the other in every order; also with some left out, as those found everything locked and did nothing."""
    places = range(len(names))
    return {
        one_after_the_other(scene, names, order, watcher, drivers)
        for count in range(1, len(names) + 1)
        for order in permutations(places, count)
    }


class Explorer:
    """Runs operations at once, and keeps what no serial order explains."""

    def __init__(self, connections: Any, name: str, names: tuple[str, ...]) -> None:
        self._watcher, self._drivers = connections
        self._scene, self._names = SCENES[name], names
        self._allowed = serial_outcomes(self._scene, names, self._watcher, self._drivers)
        self._seen: set[Outcome] = set()
        self.broken: list[Any] = []

    def run(self, order: list[int]) -> tuple[list[int], list[list[int]]]:
        """Once, in this order; the order that was taken and who could have gone at each turn."""
        subject = prepared(self._scene, self._watcher)
        operations = [bound(self._scene, name, subject) for name in self._names]
        answers, taken, choices = interleave(self._drivers, operations, self._watcher, order)
        outcome = (*(NOTHING if told in TRY_AGAIN else told for told in answers), look(self._watcher))
        if outcome not in self._seen and (rules := self._watcher.execute(RULES).fetchall()):
            self.broken.append((taken, rules))
        self._seen.add(outcome)
        if outcome not in self._allowed:
            self.broken.append((taken, outcome, self._allowed))
        return taken, choices


@pytest.mark.parametrize(("name", "pair"), PAIRS)
def test_two_at_once_are_one_after_the_other(connections: Any, name: str, pair: tuple[str, ...]) -> None:
    explorer = Explorer(connections, name, pair)

    orders = list(every_order(explorer.run, most=MOST_ORDERS))

    assert explorer.broken == []
    assert len(orders) >= 2


@pytest.mark.parametrize(("name", "three"), TRIPLES)
def test_three_at_once_are_one_after_the_other(connections: Any, name: str, three: tuple[str, ...]) -> None:
    explorer = Explorer(connections, name, three)
    chance = random.Random(f"{name} {three}")

    for _ in range(ORDERS_SAMPLED):
        explorer.run([chance.randrange(3) for _ in range(LONGEST_ORDER)])

    assert explorer.broken == []
