"""One Django migration for each file of ``sql/``, made when Django looks for them.

``migrate``, ``showmigrations`` and test databases work as for any app. What counts is our own history in the database:
each migration asks it first and writes it in the same transaction, so ``runledger migrate`` and ``manage.py migrate``
may take turns, on the same database, in any order.
"""

import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from django.apps import apps
from django.db import router
from django.db.migrations import CreateModel, Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState

from runledger.contrib.django.configuration import configuration
from runledger.database.migrate import TRANSACTION_SETTINGS, apply_migration, migrations_as_sql
from runledger.postgres import migrations
from runledger.postgres.connection import borrow

APP_LABEL = "runledger"
PATH_ENTRY = "<sql files of runledger>"
"""What the migrations package names as the place of its modules; ``SqlFileFinder`` knows it."""


class ApplySqlFile(Operation):
    """One file of ``sql/`` is applied to the database of the jobs, unless our history says that it is."""

    reduces_to_sql = True
    reversible = False
    atomic = True

    def __init__(self, version: int) -> None:
        self.version = version

    def state_forwards(self, app_label: str, state: Any) -> None:
        """The tables are no models of Django's: nothing changes in its state."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """In the transaction of Django's migration, whose settings are afterwards as before."""
        configured = configuration()
        alias = schema_editor.connection.alias
        if alias != configured.DATABASE or not router.allow_migrate(alias, app_label):
            return
        migration = self._migration()
        if schema_editor.collect_sql:
            schema_editor.execute(migrations_as_sql(configured.SCHEMA, (migration,)), params=None)
            return
        ledger = borrow(schema_editor.connection, configured.SCHEMA)
        before = _settings_of(schema_editor.connection)
        apply_migration(ledger, migration, lambda script: schema_editor.execute(script, params=None))
        _restore(schema_editor.connection, before)

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Never called: the schema only moves forward."""
        raise NotImplementedError("the migrations of Runledger are not reversible")

    def describe(self) -> str:
        """For the plan that Django prints."""
        return f"Apply {self.version}.sql of Runledger"

    def _migration(self) -> migrations.Migration:
        return next(one for one in migrations.bundled_migrations() if one.version == self.version)


def _settings_of(connection: Any) -> list[tuple[str, str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, setting FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(TRANSACTION_SETTINGS)]
        )
        return [(row[0], row[1]) for row in cursor.fetchall()]


def _restore(connection: Any, before: list[tuple[str, str]]) -> None:
    """Django goes on in this transaction, with its own table of migrations."""
    with connection.cursor() as cursor:
        for name, value in before:
            cursor.execute("SELECT set_config(%s, %s, true)", [name, value])


class SqlFileFinder:
    """Finds the modules of the migrations package: one for each file of ``sql/``, named after it. An importer in the
    sense of ``sys.path_hooks``; Django lists its modules through ``pkgutil``."""

    def __init__(self, entry: str) -> None:
        if entry != PATH_ENTRY:
            raise ImportError(entry)

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Name and whether it is a package, of each."""
        return ((f"{prefix}{_name(one)}", False) for one in migrations.bundled_migrations())

    def find_spec(self, name: str, target: ModuleType | None = None) -> ModuleSpec | None:
        """Where the module comes from, if it is one of ours."""
        known = [_name(one) for one in migrations.bundled_migrations()]
        last = name.rpartition(".")[2]
        return ModuleSpec(name, SqlFileLoader(known.index(last))) if last in known else None


class SqlFileLoader(Loader):
    """Makes the module of the file at ``index``: a class ``Migration`` that follows the one before."""

    def __init__(self, index: int) -> None:
        self.index = index

    def exec_module(self, module: ModuleType) -> None:
        """The module has its ``Migration``."""
        bundled = migrations.bundled_migrations()
        before = [(APP_LABEL, _name(one)) for one in bundled[: self.index][-1:]]
        contents = {
            "initial": not before,
            "dependencies": before,
            "operations": [ApplySqlFile(bundled[self.index].version), *([] if before else _model_states())],
            "__module__": module.__name__,
        }
        module.Migration = type("Migration", (Migration,), contents)  # type: ignore[attr-defined]


def _model_states() -> list[CreateModel]:
    """Our unmanaged models as they are now, so that ``makemigrations`` never finds a change in them."""
    states = [ModelState.from_model(model) for model in apps.get_app_config(APP_LABEL).get_models()]
    return [CreateModel(one.name, list(one.fields.items()), one.options, one.bases, one.managers) for one in states]


def install_finder() -> None:
    """Python imports the modules of the migrations package through ``SqlFileFinder``; calling it again does nothing."""
    if SqlFileFinder not in sys.path_hooks:
        sys.path_hooks.append(SqlFileFinder)
        sys.path_importer_cache.pop(PATH_ENTRY, None)


def _name(migration: migrations.Migration) -> str:
    return f"{migration.version}_{migration.name}"
