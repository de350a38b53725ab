"""System checks: what is wrong with the settings always, what is wrong with the database under ``check --database``."""

from collections.abc import Sequence
from typing import Any

from django.core import checks
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import Error as DatabaseError

from runledger.contrib.django.configuration import configuration
from runledger.contrib.django.connections import ENGINE_HINT, ledger_connection
from runledger.contrib.django.registry import has_task_backends
from runledger.core.errors import RunledgerError, SchemaAhead, SchemaBehind, SchemaMissing, UnavailableError
from runledger.postgres.migrations import check_schema

MIGRATE_HINT = "run `manage.py migrate`, or `manage.py runledger migrate` when Django believes it has"

APART_HINT = "atomic(using=...) with the alias of the jobs commits both; silence this when that is what you do"


def check_settings(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """The alias is of PostgreSQL, and in autocommit, without which nobody's enqueue is ever committed by itself; and
    whether it is another one than ``atomic()`` means."""
    alias = configuration().DATABASE
    connection = connections[alias]
    if connection.vendor != "postgresql":
        message = f"the database {alias!r} is of {connection.display_name}; jobs need PostgreSQL"
        return [checks.Error(message, hint=ENGINE_HINT, id="runledger.E001")]
    if not connection.settings_dict.get("AUTOCOMMIT", True):
        message = f"DATABASES[{alias!r}]['AUTOCOMMIT'] is off: a job enqueued outside atomic() waits for your commit"
        return [checks.Warning(message, hint="remove AUTOCOMMIT, or commit by yourself", id="runledger.W001")]
    if alias != DEFAULT_DB_ALIAS:
        message = f"jobs are enqueued on {alias!r}: atomic() on {DEFAULT_DB_ALIAS!r} does not hold them back"
        return [checks.Info(message, hint=APART_HINT, id="runledger.I001")]
    return []


def check_database(databases: Sequence[str] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """The schema is what this release needs. Asks only the database of the jobs, and only when it is named."""
    alias = configuration().DATABASE
    if alias not in (databases or ()) or connections[alias].vendor != "postgresql":
        return []
    try:
        check_schema(ledger_connection())
    except SchemaMissing as error:
        return [checks.Warning(str(error), hint=MIGRATE_HINT, id="runledger.W002")]
    except SchemaBehind as error:
        return [checks.Warning(str(error), hint=MIGRATE_HINT, id="runledger.W003")]
    except SchemaAhead as error:
        return [checks.Error(str(error), hint=error.hint, id="runledger.E002")]
    except UnavailableError as error:
        return [checks.Error(f"the database {alias!r} cannot be checked: {error}", id="runledger.E003")]
    except RunledgerError as error:
        return [checks.Error(str(error), hint=error.hint, id="runledger.E004")]
    except DatabaseError as error:
        return [checks.Error(f"the database {alias!r} cannot be checked: {type(error).__name__}", id="runledger.E003")]
    return []


def check_task_backends(app_configs: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """The backends of Django's tasks that are ours have queues and known options."""
    if not has_task_backends():
        return []
    from runledger.contrib.django.tasks import our_backends  # needs a package that not every project has

    return [finding for backend in our_backends() for finding in backend.findings()]


def register_checks() -> None:
    """``manage.py check`` asks all of them."""
    checks.register(check_settings)
    checks.register(check_task_backends)
    checks.register(check_database, checks.Tags.database)
