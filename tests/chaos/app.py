"""The application of the soak: jobs that do nothing, short jobs, jobs that fail once, and jobs with an effect.

An effect is a row that is written together with the end of its attempt (``context.finish``), so it must exist exactly
once for each job that succeeded, under the lease token of the attempt that succeeded.
"""

import os
import time
from pathlib import Path
from typing import Any

import psycopg

from runledger import JobCatalog, JobContext, RetryPolicy

CREATE_EFFECTS = """
    CREATE TABLE IF NOT EXISTS chaos_effects (
        job_id uuid NOT NULL, lease_token bigint NOT NULL, worker_id text NOT NULL,
        at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
EFFECT = "chaos.effect"
GATED_EFFECT = "chaos.gated_effect"
GATE_LOOK_SECONDS = 0.005
AT_ONCE = RetryPolicy(base_seconds=0.01, factor=1.0, jitter=False)

# A soak kills on purpose, so neither attempts nor crashes may run out: every job has to succeed in the end.
catalog = JobCatalog(retry=AT_ONCE, max_attempts=100, timeout_seconds=60, crash_budget=100)


@catalog.job("chaos.nothing")
def do_nothing(context: JobContext, payload: dict[str, Any]) -> None:
    """What a batch is made of."""


@catalog.job("chaos.brief")
def be_brief(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)


@catalog.job("chaos.fails_once")
def fail_once(context: JobContext, payload: dict[str, Any]) -> None:
    if context.attempt == 1:
        raise ValueError("the first attempt fails")


@catalog.job(EFFECT)
def have_effect(context: JobContext, payload: dict[str, Any]) -> None:
    time.sleep(payload["ms"] / 1_000)
    finish_with_effect(context)


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
    with psycopg.connect(os.environ["RL_TEST_DATABASE_URL"]) as connection:
        connection.execute(
            "INSERT INTO chaos_effects (job_id, lease_token, worker_id) VALUES (%s, %s, %s)",
            (context.job_id, context.lease_token, context.worker_id),
        )
        context.finish(connection)
