"""Enqueue from a view: with the rows of the request, or by itself."""

from typing import Any

from werkzeug.local import LocalProxy

from runledger.contrib.flask.extension import current_binding
from runledger.core.handlers import HandlerFunction, JobHandler
from runledger.core.jobs import EnqueuedJob
from runledger.core.requests import JobRequest
from runledger.database.ledger import Ledger
from runledger.postgres.connection import borrow
from runledger.postgres.enqueue import enqueue_job

current_ledger: Ledger = LocalProxy(lambda: current_binding().ledger)  # type: ignore[assignment]  # stands for one
"""The ``Ledger`` of the current app, for work with a transaction of its own."""


def enqueue(job: JobRequest | str | HandlerFunction | JobHandler, payload: Any = None) -> EnqueuedJob:
    """The job is stored in the transaction of the current session: committed with the rows of the request, or never.

    ``job`` is a handler, or its type, of the app's catalog; with options it is ``catalog.request(...)``, which has its
    payload. The session is Flask-SQLAlchemy's, or the one named to ``Runledger``. Raises as ``JobCatalog.request`` and
    ``enqueue_job`` do, and InvalidConfiguration without a session.
    """
    binding = current_binding()
    request = job if isinstance(job, JobRequest) else binding.catalog.request(job, payload)
    owner = binding.connection_owner()
    return enqueue_job(borrow(owner, binding.schema), request)
