"""What ``Runledger`` binds to an application, and where its settings come from."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flask import Flask, current_app
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from runledger.catalog import JobCatalog
from runledger.contrib.flask.commands import runledger_command
from runledger.contrib.flask.context import run_within
from runledger.core.errors import InvalidConfiguration
from runledger.database.ledger import Ledger
from runledger.database.settings import url_from_environment

EXTENSION = "runledger"
URL_SETTING = "RUNLEDGER_DATABASE_URL"
SCHEMA_SETTING = "RUNLEDGER_SCHEMA"
SQLALCHEMY_URL_SETTING = "SQLALCHEMY_DATABASE_URI"


@dataclass
class Binding:
    """What one application has of us."""

    app: Flask
    catalog: JobCatalog
    session: Any = None

    @property
    def database_url(self) -> str:
        """``RUNLEDGER_DATABASE_URL`` of the app's config, else its ``SQLALCHEMY_DATABASE_URI``, else the environment.
        Raises InvalidConfiguration without any."""
        config = self.app.config
        url = config.get(URL_SETTING) or _without_driver(config.get(SQLALCHEMY_URL_SETTING)) or url_from_environment()
        if not url:
            raise InvalidConfiguration(
                "no database is named", hint=f"set app.config[{URL_SETTING!r}], or {URL_SETTING} in the environment"
            )
        return str(url)

    @property
    def schema(self) -> str | None:
        """``RUNLEDGER_SCHEMA`` of the app's config; None leaves it to the environment."""
        schema: str | None = self.app.config.get(SCHEMA_SETTING)
        return schema

    @cached_property
    def ledger(self) -> Ledger:
        """The app's client. Its pool opens on first use, in the process that uses it."""
        return Ledger(self.database_url, schema=self.schema)

    def connection_owner(self) -> Any:
        """The session whose connection holds the rows of a request: the one named to ``Runledger``, else that of
        Flask-SQLAlchemy. Raises InvalidConfiguration without either."""
        if self.session is not None:
            return self.session
        flask_sqlalchemy = self.app.extensions.get("sqlalchemy")
        if flask_sqlalchemy is None:
            raise InvalidConfiguration(
                "no session to enqueue on",
                hint="name one: Runledger(app, catalog=catalog, session=session); or use current_ledger.enqueue, "
                "which commits by itself",
            )
        return flask_sqlalchemy.session


class Runledger:
    """The extension. ``session`` is the SQLAlchemy session of the application, when that is not Flask-SQLAlchemy's."""

    def __init__(self, app: Flask | None = None, *, catalog: JobCatalog, session: Any = None) -> None:
        self.catalog = catalog
        self.session = session
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """``app`` has ``flask runledger``, and the jobs of the catalog run within a context of it. An app that is bound
        to the same catalog later takes its place. Raises InvalidConfiguration when ``app`` has been bound already."""
        if EXTENSION in app.extensions:
            raise InvalidConfiguration("this app has a Runledger already")
        app.extensions[EXTENSION] = Binding(app, self.catalog, self.session)
        app.cli.add_command(runledger_command)
        run_within(app, self.catalog)


def current_binding() -> Binding:
    """What the current app has of us. Raises InvalidConfiguration when that is nothing, and RuntimeError outside of an
    application context, as Flask does."""
    binding = current_app.extensions.get(EXTENSION)
    if not isinstance(binding, Binding):
        raise InvalidConfiguration("this app has no Runledger", hint="Runledger(app, catalog=catalog)")
    return binding


def _without_driver(url: Any) -> str | None:
    """A URL of SQLAlchemy as libpq reads it; None for none, and for that of another database."""
    if not url:
        return None
    try:
        parsed = make_url(url)
    except ArgumentError:
        return None
    if parsed.get_backend_name() != "postgresql":
        return None
    return parsed.set(drivername="postgresql").render_as_string(hide_password=False)
