"""Workers settle siblings of the same runs in batches while gates, appends and cancels race them: no deadlock, ever.

RUNLEDGER_WORKFLOW_RACE_SECONDS lengthens it (default 4), RUNLEDGER_WORKFLOW_RACE_WORKERS adds workers (default 4).
"""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from postgres.conftest import Connect
from postgres.workflow_graphs import TYPE, Connection, a_workflow, assert_invariants, enqueue

from runledger.core.errors import RunledgerError, SerializationFailure
from runledger.core.jobs import ClaimedJob, Scope
from runledger.core.workflow_builder import WorkflowDagBuilder
from runledger.core.workflows import Failed, StepDependency, StepRequest, Succeeded
from runledger.postgres.claim import claim_jobs
from runledger.postgres.operations import cancel_job
from runledger.postgres.recovery import reap_lapsed_leases
from runledger.postgres.settle import settle_jobs
from runledger.postgres.workflow_append import append_workflow_steps
from runledger.postgres.workflow_cancel import cancel_workflow_run
from runledger.postgres.workflow_gates import complete_external_workflow_step
from runledger.testing.factories import dead_lettered, failed, succeeded

SECONDS = float(os.environ.get("RUNLEDGER_WORKFLOW_RACE_SECONDS", "4"))
WORKERS = int(os.environ.get("RUNLEDGER_WORKFLOW_RACE_WORKERS", "4"))
LEAST_TURNS = 10
ANY = Scope.any()
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


def a_race_graph(connection: Connection) -> WorkflowDagBuilder:
    """A wide level, a gate, a join over both, and what follows in both modes."""
    builder = a_workflow(connection).job("root", TYPE).external("gate")
    siblings = [f"s{number}" for number in range(8)]
    for key in siblings:
        builder.job(key, TYPE).after_success(key, ["root"])
    builder.job("join", TYPE).after_terminal("join", [*siblings, "gate"])
    builder.job("strict", TYPE).after_success("strict", siblings)
    return builder.job("end", TYPE).after_terminal("end", ["join", "strict"])


class Race:
    """What all threads share: the runs, the end of the race, and what went wrong."""

    def __init__(self, connect: Connect, run_ids: list[str]) -> None:
        self.connect = connect
        self.run_ids = run_ids
        self.until = time.monotonic() + SECONDS
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.broken: list[BaseException] = []

    def run(self, name: str, turn: Callable[[Connection, random.Random], Any], connection: Connection) -> None:
        chance = random.Random(name)
        try:
            while not self.is_over():
                try:
                    with connection.transaction():
                        turn(connection, chance)
                    self.done[name.partition("-")[0]] += 1
                except SerializationFailure:
                    raise
                except RunledgerError as error:
                    self.errors[error.code] += 1
        except BaseException as error:
            self.broken.append(error)

    def is_over(self) -> bool:
        """After its time, or later where the machine is so slow that the workers have hardly begun."""
        late = time.monotonic() - self.until
        return late > 60 or (late > 0 and self.done["worker"] > LEAST_TURNS)

    def pick(self, chance: random.Random) -> str:
        return chance.choice(self.run_ids)


def work(worker: str) -> Callable[[Connection, random.Random], None]:
    """Claims in one transaction, settles in the next, as a worker does."""
    held: list[Any] = []

    def turn(connection: Connection, chance: random.Random) -> None:
        if held:
            ends = held.copy()
            held.clear()
            settle_jobs(connection, ends)
            return
        size = chance.randint(1, 12)
        jobs = claim_jobs(connection, worker_id=worker, job_types=[TYPE], limit=size, lease_ttl_seconds=60)
        chance.shuffle(jobs)
        held.extend(an_end(job, chance) for job in jobs)

    return turn


def an_end(job: ClaimedJob, chance: random.Random) -> Any:
    draw = chance.random()
    if draw < 0.1:
        return failed(job, retry_seconds=0)
    return dead_lettered(job) if draw < 0.2 else succeeded(job)


def answer_gates(race: Race) -> Callable[[Connection, random.Random], None]:
    def turn(connection: Connection, chance: random.Random) -> None:
        outcome = chance.choice([Succeeded({"n": 1}), Failed("no")])
        complete_external_workflow_step(connection, run_id=race.pick(chance), step_key="gate", outcome=outcome)

    return turn


def append(race: Race) -> Callable[[Connection, random.Random], None]:
    def turn(connection: Connection, chance: random.Random) -> None:
        key = f"a{chance.randint(0, 10**9)}"
        steps = [
            StepRequest(key, TYPE, dependencies=[StepDependency(f"s{chance.randint(0, 7)}")]),
            StepRequest(f"{key}b", TYPE, dependencies=[StepDependency(key)]),
        ]
        append_workflow_steps(
            connection, run_id=race.pick(chance), mutation_key=key, window_step_key="gate", steps=steps
        )

    return turn


def cancel(race: Race) -> Callable[[Connection, random.Random], None]:
    def turn(connection: Connection, chance: random.Random) -> None:
        if chance.random() < 0.1:
            cancel_workflow_run(connection, run_id=race.pick(chance))
            return
        rows = connection.execute(
            "SELECT id FROM runledger.job_queue WHERE final_status IS NULL ORDER BY random() LIMIT 1"
        ).fetchall()
        for (job_id,) in rows:
            cancel_job(connection, job_id, scope=ANY)

    return turn


def lapse(connection: Connection, chance: random.Random) -> None:
    connection.execute(
        "UPDATE runledger.job_leases SET lease_expires_at = now() - interval '1 s' WHERE job_id IN "
        "(SELECT job_id FROM runledger.job_leases ORDER BY job_id LIMIT 1 FOR UPDATE SKIP LOCKED)"
    )


def reap(connection: Connection, chance: random.Random) -> None:
    reap_lapsed_leases(connection, limit=5)


def start_more(race: Race) -> Callable[[Connection, random.Random], None]:
    def turn(connection: Connection, chance: random.Random) -> None:
        race.run_ids.append(str(enqueue(connection, a_race_graph(connection)).run_id))
        del race.run_ids[:-12]

    return turn


def look(connection: Connection, chance: random.Random) -> None:
    assert_invariants(connection)
    threading.Event().wait(0.2)


def test_workers_gates_appends_and_cancels_never_deadlock(connection: Connection, connect: Connect) -> None:
    runs = [str(enqueue(connection, a_race_graph(connection)).run_id) for _ in range(6)]
    race = Race(connect, runs)
    turns: dict[str, Callable[[Connection, random.Random], Any]] = {
        **{f"worker-{number}": work(f"worker-{number}") for number in range(WORKERS)},
        "gates-1": answer_gates(race),
        "appends-1": append(race),
        "cancels-1": cancel(race),
        "lapses-1": lapse,
        "reaper-1": reap,
        "starts-1": start_more(race),
        "looks-1": look,
    }
    before = deadlocks(connection)

    threads = [threading.Thread(target=race.run, args=(name, turn, connect())) for name, turn in turns.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    print(dict(race.done), dict(race.errors))
    assert race.broken == []
    assert deadlocks(connection) == before
    assert_invariants(connection)
    assert race.done["worker"] > LEAST_TURNS
    assert race.done["appends"] + race.done["gates"] > 0
    assert "db.serialization_failure" not in race.errors
    assert "workflow.internal_state" not in race.errors


def deadlocks(connection: Connection) -> int:
    connection.execute("SELECT pg_stat_clear_snapshot()")
    row = connection.execute(DEADLOCKS).fetchone()
    assert row is not None
    return int(row[0])
