"""Runledger in a Flask application: enqueue with the rows of a request, commands, the app's context around each job.

``Runledger(app, catalog=catalog)``, or ``Runledger(catalog=catalog)`` and ``init_app(app)``. Nothing is opened before
the first use, so an application may be imported before a server forks.
"""

from runledger.contrib.flask.enqueueing import current_ledger, enqueue
from runledger.contrib.flask.extension import Runledger

__all__ = ["Runledger", "current_ledger", "enqueue"]
