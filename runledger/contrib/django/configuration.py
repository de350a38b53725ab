"""``RUNLEDGER = {...}`` in the settings of a project: what may stand there, and what is said when it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections

from runledger.core.definitions import RetryPolicy
from runledger.core.errors import InvalidConfiguration
from runledger.postgres.connection import default_schema
from runledger.postgres.statements import check_schema_name

OUR_APP = "runledger.contrib.django.worker_app:load_catalog"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings, checked. Each may be left out."""

    DATABASE: str = DEFAULT_DB_ALIAS
    """The alias in ``DATABASES`` whose database holds the jobs."""
    SCHEMA: str = field(default_factory=default_schema)
    """The schema that holds the tables; ``RUNLEDGER_SCHEMA``, else ``runledger``."""
    APP: str = OUR_APP
    """What ``manage.py runledger worker`` runs; by default the catalog of this package with every ``jobs.py``."""
    JOBS_MODULE: str = "jobs"
    """The module of each installed app that is imported to find its jobs."""
    JOB_DEFAULTS: Mapping[str, Any] = field(default_factory=dict)
    """Settings of jobs that name none: the arguments of ``JobCatalog``."""


JOB_DEFAULT_TYPES: Mapping[str, type] = {
    "max_attempts": int,
    "timeout_seconds": int,
    "priority": int,
    "queue": str,
    "retry": RetryPolicy,
    "crash_budget": int,
}


def configuration() -> Configuration:
    """The settings as they are now. Raises ImproperlyConfigured, naming the setting."""
    given = getattr(settings, "RUNLEDGER", {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured("RUNLEDGER must be a dict")
    known = [one.name for one in fields(Configuration)]
    for name, value in given.items():
        if name not in known:
            raise ImproperlyConfigured(f"RUNLEDGER has no setting {name!r}; there are {', '.join(known)}")
        if name == "JOB_DEFAULTS":
            _check_job_defaults(value)
        elif not isinstance(value, str) or not value:
            raise ImproperlyConfigured(f"RUNLEDGER[{name!r}] must be a text")
    try:
        found = Configuration(**given)
        check_schema_name(found.SCHEMA)
    except InvalidConfiguration as error:
        raise ImproperlyConfigured(f"RUNLEDGER['SCHEMA']: {error}") from None
    if found.DATABASE not in connections.settings:
        aliases = ", ".join(sorted(connections.settings))
        raise ImproperlyConfigured(f"RUNLEDGER['DATABASE'] names {found.DATABASE!r}; DATABASES has {aliases}")
    return found


def _check_job_defaults(value: object) -> None:
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured("RUNLEDGER['JOB_DEFAULTS'] must be a dict")
    for name, default in value.items():
        if name not in JOB_DEFAULT_TYPES:
            raise ImproperlyConfigured(
                f"RUNLEDGER['JOB_DEFAULTS'] has no setting {name!r}; there are {', '.join(JOB_DEFAULT_TYPES)}"
            )
        wanted = JOB_DEFAULT_TYPES[name]
        if not isinstance(default, wanted) or isinstance(default, bool):
            raise ImproperlyConfigured(f"RUNLEDGER['JOB_DEFAULTS'][{name!r}] must be of type {wanted.__name__}")
