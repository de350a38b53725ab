"""Enqueue on Django's own connection: inside ``atomic()`` the job exists if and only if the block commits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from runledger.contrib.django.configuration import configuration
from runledger.contrib.django.connections import ledger_connection
from runledger.contrib.django.registry import catalog
from runledger.core.handlers import HandlerFunction, JobHandler
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import JobRequest
from runledger.postgres.enqueue import enqueue_job, enqueue_jobs


def enqueue(
    job: str | HandlerFunction | JobHandler,
    payload: Any = None,
    *,
    using: str | None = None,
    organization_id: UUID | str | None = None,
    priority: int | None = None,
    max_attempts: int | None = None,
    timeout_seconds: int | None = None,
    next_run_at: datetime | None = None,
    delay: timedelta | float | None = None,
    idempotency_key: str | None = None,
    idempotency_ttl: timedelta | None = None,
    active_key: str | None = None,
    expires_at: datetime | None = None,
    tags: Sequence[str] = (),
) -> EnqueuedJob:
    """The job is stored with the caller's transaction, and its id known at once; outside ``atomic()`` it is committed.

    ``job`` is a job type or a function registered with ``job``. A type of the project's catalog is checked against it,
    payload and all; any other needs a stored definition. Options and errors are those of ``JobRequest`` and
    ``enqueue_job``; TransactionAborted in a transaction that has failed, InvalidConfiguration as
    ``ledger_connection`` raises it.
    """
    make = JobRequest if isinstance(job, str) and job not in catalog else catalog.request
    request = make(
        job,  # type: ignore[arg-type]  # a text wherever JobRequest makes it
        payload,
        organization_id=organization_id,
        priority=priority,
        max_attempts=max_attempts,
        timeout_seconds=timeout_seconds,
        next_run_at=next_run_at,
        delay=delay,
        idempotency_key=idempotency_key,
        idempotency_ttl=idempotency_ttl,
        active_key=active_key,
        expires_at=expires_at,
        tags=tags,
    )
    return enqueue_job(ledger_connection(using), request)


def enqueue_many(requests: Sequence[JobRequest], *, using: str | None = None) -> list[EnqueuedJob]:
    """All jobs are stored, or none, in the order of ``requests``: with the caller's transaction, else in one of their
    own. ``catalog.request`` makes requests that are checked. Raises as ``enqueue_jobs`` does."""
    ledger = ledger_connection(using)
    if not ledger.is_autocommit:
        return enqueue_jobs(ledger, requests)
    with transaction.atomic(using=configuration().DATABASE if using is None else using):
        return enqueue_jobs(ledger, requests)
