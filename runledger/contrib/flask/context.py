"""An application context for each attempt, torn down at its end, so that extensions work in handlers as in requests."""

from collections.abc import Callable
from typing import Any

from flask import Flask

from runledger.core.catalog import JobCatalog
from runledger.core.context import JobContext
from runledger.core.middleware import Middleware


class AppContextMiddleware(Middleware):
    """Around each attempt of a catalog's workers; the teardown functions of the app see what the handler raised."""

    def __init__(self, app: Flask) -> None:
        self.app = app

    def around_attempt(self, context: JobContext, payload: Any, proceed: Callable[[], Any]) -> Any:
        with self.app.app_context():
            return proceed()


def run_within(app: Flask, catalog: JobCatalog) -> None:
    """The attempts of the catalog run within ``app``, and no longer within one named before: a factory that is called
    for each test makes many apps for one catalog."""
    for middleware in catalog.middleware:
        if isinstance(middleware, AppContextMiddleware):
            middleware.app = app
            return
    catalog.use(AppContextMiddleware(app))
