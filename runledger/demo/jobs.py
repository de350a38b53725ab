"""The catalog of the demonstration: ``runledger worker --app runledger.demo.jobs:catalog``.

Nothing here knows of a queue beyond its context; the faults that the demonstration wants are in the payloads.
"""

import os
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool

from runledger import JobCatalog, JobContext, JobFailure, RetryPolicy
from runledger.database.settings import url_from_environment
from runledger.demo.extraction import extract
from runledger.demo.long_text import STEPS, LongText
from runledger.demo.results import ResultRow, write_row

PACE_SECONDS = 0.1
"""The first attempt of the long job is slowed down, so that there is time to kill its worker."""

catalog = JobCatalog(max_attempts=3, timeout_seconds=60, retry=RetryPolicy(base_seconds=0.2, factor=1.0))


@dataclass(frozen=True, slots=True)
class FileToDigest:
    """One file below ``root``. ``stumbles``: the first attempt fails, after it has written its row."""

    root: str
    path: str
    stumbles: bool = False


@catalog.job("demo.digest")
def digest(context: JobContext, payload: FileToDigest) -> None:
    """The file's row and the end of its job are one commit. Raises JobFailure, terminal when the file is missing."""
    try:
        content = (Path(payload.root) / payload.path).read_bytes()
    except FileNotFoundError:
        raise JobFailure.terminal("demo.file_missing", f"there is no file {payload.path}") from None
    facts = extract(content, Path(payload.path).suffix)
    with own_database().connection() as connection:
        write_row(connection, ResultRow(payload.path, context.job_id, context.attempt, facts))
        context.finish(connection, {"words": facts.words})
        if payload.stumbles and context.attempt == 1:
            raise JobFailure.retryable("demo.stumbled", "failed on purpose: row and completion are rolled back")


@catalog.job("demo.slow")
def slow(context: JobContext, payload: dict[str, Any]) -> dict[str, Any]:
    """The long text is read through, from where the last attempt came to. The checkpoint also says which process is
    at work, so that the demonstration can kill exactly that one."""
    stored = context.checkpoint or {"text": {}}
    text = LongText(**stored["text"])
    resumed_at = text.step
    while text.step < STEPS:
        text = text.next()
        context.save_checkpoint({"text": asdict(text), "pid": os.getpid(), "parent_pid": os.getppid()})
        context.progress(done=text.step, total=STEPS)
        if context.attempt == 1:
            time.sleep(PACE_SECONDS)
    return {"text": asdict(text), "resumed_at": resumed_at}


@cache
def own_database() -> ConnectionPool[psycopg.Connection[Any]]:
    """The application's own connections, opened by the worker process that first needs one."""
    return ConnectionPool(url_from_environment() or "", min_size=0, max_size=1, open=True)
