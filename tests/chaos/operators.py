"""People and programs that do things to jobs and runs while everything breaks, and what they were told."""

import random
import threading
from collections.abc import Callable
from types import NoneType
from typing import Any

import psycopg
from chaos.app import STEP
from chaos.told import Line, Told, Witness, ask

from runledger import (
    ConflictError,
    NotFoundError,
    Scope,
    StepDependency,
    StepRequest,
    UnavailableError,
    WorkflowDagBuilder,
    WorkflowRunRequest,
    append_workflow_steps,
    cancel_job,
    cancel_workflow_run,
    complete_external_workflow_step,
    enqueue_workflow_run,
    output_of,
    requeue_job,
    reschedule_job,
)
from runledger.core.states import ReleaseMode
from runledger.core.workflows import Failed, Succeeded

Connection = psycopg.Connection[Any]
PAUSE_SECONDS = 0.25
ANY = Scope.any()
RUN_TRIES = 60
GATES_OF_A_LOOK = 20

OPEN_GATES = """
    SELECT s.workflow_run_id::text, s.step_key FROM runledger.workflow_steps s
    WHERE s.status = 'WAITING_FOR_EXTERNAL' ORDER BY s.id LIMIT %s
"""
SOME_UNFINISHED = """
    SELECT q.id::text FROM runledger.job_queue q
    WHERE q.final_status IS NULL AND q.workflow_run_id IS NULL AND q.schedule_id IS NULL ORDER BY q.id DESC LIMIT 20
"""
SOME_DEAD = """
    SELECT q.id::text FROM runledger.job_dead_letters d JOIN runledger.job_queue q ON q.id = d.job_id
    WHERE q.final_status = 'DEAD_LETTERED' AND q.workflow_run_id IS NULL ORDER BY d.failed_at DESC LIMIT 20
"""
SOME_LATER = "SELECT job_id::text FROM runledger.job_scheduled ORDER BY next_run_at DESC LIMIT 20"
LIVE_RUNS = """
    SELECT id::text FROM runledger.workflow_runs WHERE status IN ('RUNNING', 'WAITING_FOR_EXTERNAL')
    ORDER BY id DESC LIMIT 10
"""


class Operator(threading.Thread):
    """One thing after the other until told to stop; then every gate that is open is passed."""

    def __init__(self, url: str, witness: Witness, seed: int) -> None:
        super().__init__(name="operator", daemon=True)
        self._line = Line(url)
        self._witness = witness
        self._chance = random.Random(f"{seed}-operator")
        self._is_over = threading.Event()
        self._runs = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        deeds = {
            self._enqueue_run: 8,
            self._answer_gates: 5,
            self._cancel_job: 2,
            self._requeue: 2,
            self._reschedule: 2,
            self._cancel_run: 1,
        }
        try:
            while not self._is_over.wait(PAUSE_SECONDS):
                [deed] = self._chance.choices(list(deeds), list(deeds.values()))
                deed()
        except BaseException as error:  # told to the soak, which fails by it
            self.failure = error

    def stop(self) -> None:
        self._is_over.set()
        self.join(60)

    def pass_all_gates(self) -> bool:
        """Whether none was open; each that is, is passed."""
        gates = self._look(OPEN_GATES, GATES_OF_A_LOOK)
        for run_id, step_key in gates:
            self._complete(run_id, step_key, Succeeded({"value": 0}))
        return not gates

    def close(self) -> None:
        self._line.close()

    def _enqueue_run(self) -> None:
        """Asks again under the same key until it is told an id."""
        self._runs += 1
        key = f"run-{self._runs}"
        shape = self._chance.choice((_chain, _fan, _gated, _gated))
        request, endings = shape(key, self._chance)
        for _ in range(RUN_TRIES):
            asked = ask(self._line, lambda connection: enqueue_workflow_run(connection, request))
            self._witness.note("run", asked.told, key=key, answer=asked.answer)
            if not isinstance(asked.error, (UnavailableError, NoneType)):
                self._witness.surprise("enqueue_workflow_run", asked.error)
            if asked.answer is not None:
                run_id = str(asked.answer.run_id)
                self._witness.runs.setdefault(key, set()).add(run_id)
                self._witness.endings.setdefault(run_id, set()).update(endings)
                if self._chance.random() > 0.1:  # one in ten is asked for again, as a retry would
                    return
            elif self._is_over.wait(PAUSE_SECONDS):
                return

    def _answer_gates(self) -> None:
        for run_id, step_key in self._look(OPEN_GATES, 3):
            if self._chance.random() < 0.5:
                self._append(run_id, step_key)
            is_yes = self._chance.random() < 0.8
            outcome = Succeeded({"value": 1}) if is_yes else Failed("chaos.no", "the outside world said no")
            for _ in range(self._chance.choice((1, 1, 2, 3))):
                self._complete(run_id, step_key, outcome)

    def _complete(self, run_id: str, step_key: str, outcome: Succeeded | Failed) -> None:
        def complete(connection: Connection) -> None:
            complete_external_workflow_step(connection, run_id=run_id, step_key=step_key, outcome=outcome)

        is_yes = isinstance(outcome, Succeeded)
        told = self._do("gate", complete, run=run_id, step=step_key, is_yes=is_yes)
        if told is Told.DONE:
            self._witness.gates[run_id, step_key] = "SUCCEEDED" if is_yes else "FAILED"
        if not is_yes and told is not Told.NOT_DONE:
            self._witness.endings.setdefault(run_id, set()).add("COMPLETED_WITH_ERRORS")

    def _append(self, run_id: str, step_key: str) -> None:
        """The same append twice: under its key it happens once."""
        mutation_key = f"more-of-{step_key}"
        edges = [StepDependency("more-1"), StepDependency(step_key, ReleaseMode.ON_TERMINAL)]
        steps = [StepRequest("more-1", STEP, {"ms": 1}), StepRequest("more-2", STEP, {"ms": 1}, dependencies=edges)]

        def append(connection: Connection) -> None:
            append_workflow_steps(
                connection, run_id=run_id, mutation_key=mutation_key, window_step_key=step_key, steps=steps
            )

        for _ in range(2):
            if self._do("append", append, run=run_id, key=mutation_key) is Told.DONE:
                self._witness.appended[run_id, mutation_key] = len(steps)

    def _cancel_run(self) -> None:
        run_id = self._one_of(LIVE_RUNS)
        if run_id is None:
            return

        def cancel(connection: Connection) -> None:
            cancel_workflow_run(connection, run_id=run_id, reason="not wanted any more", actor="operator")

        if self._do("cancel run", cancel, run=run_id) is not Told.NOT_DONE:
            self._witness.endings.setdefault(run_id, set()).add("CANCELED")

    def _cancel_job(self) -> None:
        job_id = self._one_of(SOME_UNFINISHED)
        if job_id is None:
            return

        def cancel(connection: Connection) -> None:
            cancel_job(connection, job_id, scope=ANY, reason="not wanted any more", actor="operator")

        told = self._do("cancel", cancel, job=job_id)
        if told is not Told.NOT_DONE:
            self._witness.cancelled.add(job_id)
        if told is Told.DONE:
            self._witness.certainly_cancelled.add(job_id)

    def _requeue(self) -> None:
        job_id = self._one_of(SOME_DEAD)
        if job_id is not None:
            self._do("requeue", lambda one: requeue_job(one, job_id, scope=ANY, actor="operator"), job=job_id)

    def _reschedule(self) -> None:
        job_id = self._one_of(SOME_LATER)
        if job_id is None:
            return

        def put_off(connection: Connection) -> None:
            [(soon,)] = connection.execute("SELECT clock_timestamp() + interval '1 second'").fetchall()
            reschedule_job(connection, job_id, next_run_at=soon, scope=ANY, actor="operator")

        self._do("reschedule", put_off, job=job_id)

    def _do(self, what: str, deed: Callable[[Connection], Any], **facts: Any) -> Told:
        """Asked once, and written down. What a caller may be refused with here: that somebody else was faster, that it
        is gone, or that nobody answers."""
        asked = ask(self._line, deed)
        self._witness.note(what, asked.told, **facts)
        if not isinstance(asked.error, (UnavailableError, NotFoundError, ConflictError, NoneType)):
            self._witness.surprise(what, asked.error)
        return asked.told

    def _look(self, query: str, *parameters: object) -> list[Any]:
        return ask(self._line, lambda connection: connection.execute(query, parameters).fetchall()).answer or []

    def _one_of(self, query: str) -> str | None:
        rows = self._look(query)
        return str(self._chance.choice(rows)[0]) if rows else None


Shape = tuple[WorkflowRunRequest, set[str]]


def _chain(key: str, chance: random.Random) -> Shape:
    builder = WorkflowDagBuilder("chaos.chain").idempotency_key(key).job("a", STEP, {"ms": chance.randint(0, 10)})
    for before, step in (("a", "b"), ("b", "c")):
        builder.job(step, STEP, {"ms": 1, "value": output_of(before, "value")}).after_success(step, [before])
    return builder.result_step("c").build(), {"SUCCEEDED"}


def _fan(key: str, chance: random.Random) -> Shape:
    """One of the branches may fail; what waits for success behind it is cancelled, what waits for any end runs."""
    fails = chance.random() < 0.5
    builder = WorkflowDagBuilder("chaos.fan").idempotency_key(key).job("a", STEP, {"ms": 1})
    branches = [f"b{number}" for number in range(chance.randint(2, 5))]
    for branch in branches:
        builder.job(branch, STEP, {"ms": 2, "fails": fails and branch == "b0"}).after_success(branch, ["a"])
    builder.job("after-b0", STEP, {"ms": 1}).after_success("after-b0", ["b0"])
    builder.job("join", STEP, {"ms": 1}).after_terminal("join", [*branches, "after-b0"])
    return builder.build(), {"COMPLETED_WITH_ERRORS" if fails else "SUCCEEDED"}


def _gated(key: str, chance: random.Random) -> Shape:
    builder = WorkflowDagBuilder("chaos.gated").idempotency_key(key).job("a", STEP, {"ms": chance.randint(0, 5)})
    builder.external("gate").after_success("gate", ["a"])
    builder.job("yes", STEP, {"ms": 1}).after_success("yes", ["gate"])
    builder.job("always", STEP, {"ms": 1}).after_terminal("always", ["gate"])
    return builder.build(), {"SUCCEEDED"}
