"""The catalog of a Django project: each installed app registers its jobs on it, in its ``jobs.py``."""

from functools import cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import autodiscover_modules

from runledger.catalog import JobCatalog
from runledger.contrib.django.configuration import configuration
from runledger.contrib.django.hygiene import ConnectionHygiene
from runledger.core.errors import ValidationError

TASK_BACKEND = "runledger.contrib.django.tasks.RunledgerBackend"


def _new_catalog() -> JobCatalog:
    try:
        return JobCatalog(**configuration().JOB_DEFAULTS)
    except ValidationError as error:
        raise ImproperlyConfigured(f"RUNLEDGER['JOB_DEFAULTS']: {error}") from None


catalog = _new_catalog()
catalog.use(ConnectionHygiene())
job = catalog.job


@cache
def autodiscover() -> JobCatalog:
    """The catalog, after the jobs module of every installed app has been imported and our task backends have their
    queues, once for each process. Raises what such a module raises, each time until it imports."""
    autodiscover_modules(configuration().JOBS_MODULE)
    if has_task_backends():
        from runledger.contrib.django.tasks import register_tasks  # needs a package that not every project has

        register_tasks(catalog)
    return catalog


def has_task_backends() -> bool:
    """Whether ``TASKS`` names our backend."""
    return any(one.get("BACKEND") == TASK_BACKEND for one in getattr(settings, "TASKS", {}).values())
