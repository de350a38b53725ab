"""The application of the soak: jobs that end in every way there is.

An effect is a row that is written together with the end of its attempt (``context.finish``), so it must exist exactly
once for each job that succeeded, under the lease token of the attempt that succeeded.
"""

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from runledger import Continue, JobCatalog, JobContext, JobFailure, Middleware, MissedPolicy, RetryPolicy, Snooze

CREATE_EFFECTS = """
    CREATE TABLE IF NOT EXISTS chaos_effects (
        job_id uuid NOT NULL, lease_token bigint NOT NULL, worker_id text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
EFFECT = "chaos.effect"
GATED_EFFECT = "chaos.gated_effect"
STEP = "chaos.step"
FAILING = ("chaos.fails", "chaos.terminal", "chaos.hangs", "chaos.exits")
"""The types whose jobs may end as dead letters; all others must succeed, unless somebody cancelled them."""

BEGUN_FILE = "begun.txt"
"""In the directory of the soak: one line for each attempt that began, its job and its token. No database that is lost
can take one back."""

GATE_LOOK_SECONDS = 0.005
LAST_RUN = 3
AT_ONCE = RetryPolicy(base_seconds=0.01, factor=1.0, jitter=False)

# A soak kills on purpose, so neither attempts nor crashes may run out where a job has to succeed in the end.
catalog = JobCatalog(retry=AT_ONCE, max_attempts=100, timeout_seconds=60, crash_budget=100)


class Begun(Middleware):
    """Writes down that an attempt begins, before anything else happens in it."""

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        with Path(BEGUN_FILE).open("ab", buffering=0) as begun:
            begun.write(f"{context.job_id} {context.lease_token}\n".encode())
        return proceed()


catalog.use(Begun())


@catalog.job("chaos.nothing")
def do_nothing(context: JobContext, payload: dict[str, Any]) -> None:
    """What a batch is made of."""


@catalog.job("chaos.brief")
def be_brief(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)


@catalog.job("chaos.limited", max_running=2)
def be_one_of_two(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)


@catalog.job("chaos.rated", rate_limit="20/5s")
def be_seldom(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)


@catalog.job("chaos.fails_once")
def fail_once(context: JobContext, payload: dict[str, Any]) -> None:
    if context.attempt == 1:
        raise ValueError("the first attempt fails")


@catalog.job("chaos.fails", max_attempts=2)
def fail(context: JobContext, payload: dict[str, Any]) -> None:
    raise ValueError("every attempt fails")


@catalog.job("chaos.terminal")
def give_up(context: JobContext, payload: dict[str, Any]) -> None:
    raise JobFailure.terminal("chaos.hopeless", "no attempt can succeed")


@catalog.job("chaos.hangs", max_attempts=2, timeout_seconds=1)
def hang(context: JobContext, payload: dict[str, Any]) -> None:
    """Nothing but the kill of its process ends it."""
    while True:
        try:
            time.sleep(60)
        except BaseException:
            continue


@catalog.job("chaos.exits", max_attempts=2, crash_budget=2)
def kill_the_process(context: JobContext, payload: dict[str, Any]) -> None:
    if payload["ms"] % 2:
        os._exit(0)
    os.kill(os.getpid(), signal.SIGSEGV)


@catalog.job("chaos.snoozes")
def snooze(context: JobContext, payload: dict[str, Any]) -> None:
    if context.checkpoint is None:
        context.save_checkpoint({"snoozed": True})
        raise Snooze(0.2)


@catalog.job("chaos.continues")
def go_on(context: JobContext, payload: dict[str, Any]) -> None:
    if context.run_number < LAST_RUN:
        raise Continue


@catalog.job("chaos.slow")
def be_slow(context: JobContext, payload: dict[str, Any]) -> None:
    """Longer than a lease: only renewal keeps it."""
    for second in range(payload["seconds"]):
        time.sleep(1.0)
        context.progress(second + 1, payload["seconds"])


@catalog.job("chaos.hog")
def hold_the_interpreter(context: JobContext, payload: dict[str, Any]) -> None:
    """No other thread of its process runs for a second."""
    re.match(r"(a+)+$", "a" * 23 + "b")


@catalog.job(EFFECT)
def have_effect(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)
    finish_with_effect(context)


@catalog.job(STEP)
def take_a_step(context: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
    time.sleep(payload["ms"] / 1_000)
    if payload.get("fails"):
        raise JobFailure.terminal("chaos.branch", "this branch leads nowhere")
    return {"value": payload.get("value", 0) + 1}


@catalog.job("chaos.tick")
def tick(context: JobContext, payload: dict[str, Any]) -> None:
    """What the schedules fire."""


catalog.schedule("no slot is left out", cron="*/5 * * * * *", job_type="chaos.tick", missed=MissedPolicy.ALL)
catalog.schedule("one late firing will do", cron="*/3 * * * * *", job_type="chaos.tick", jitter_seconds=1)


@catalog.job(GATED_EFFECT)
def have_gated_effect(context: JobContext, payload: dict[str, Any]) -> None:
    """Waits for the gate of its own attempt; says by a file that it has begun."""
    own = Path(f"{payload['gate']}.{context.attempt}")
    Path(f"{own}.begun").write_text(str(os.getpid()))
    while not own.exists():
        try:
            time.sleep(GATE_LOOK_SECONDS)
        except BaseException:
            continue
    finish_with_effect(context)


def finish_with_effect(context: JobContext) -> None:
    with psycopg.connect(os.environ["RL_TEST_DATABASE_URL"], prepare_threshold=None) as connection:  # maybe pooled
        connection.execute(
            "INSERT INTO chaos_effects (job_id, lease_token, worker_id) VALUES (%s, %s, %s)",
            (context.job_id, context.lease_token, context.worker_id),
        )
        context.finish(connection)
