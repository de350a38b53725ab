"""The Django app: what happens when a project starts and after it has migrated."""

from typing import Any

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class RunledgerConfig(AppConfig):
    """``INSTALLED_APPS += ["runledger.contrib.django"]``."""

    name = "runledger.contrib.django"
    label = "runledger"
    verbose_name = "Runledger"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """The jobs of every installed app are on the catalog, checks are registered, and definitions follow each
        ``migrate``. Raises
        ImproperlyConfigured for a wrong setting, and what a jobs module raises."""
        from runledger.contrib.django.checks import register_checks
        from runledger.contrib.django.configuration import configuration
        from runledger.contrib.django.registry import autodiscover

        configuration()
        autodiscover()
        register_checks()
        post_migrate.connect(store_definitions, sender=self)


def store_definitions(using: str, **_signal: Any) -> None:
    """Definitions and schedules of the project's jobs are stored once its database is migrated, so that it may enqueue
    before any worker has run. Additive: what operators switched off stays off."""
    from django.db import transaction

    from runledger.contrib.django.configuration import configuration
    from runledger.contrib.django.connections import ledger_connection
    from runledger.contrib.django.registry import autodiscover
    from runledger.postgres.migrations import applied_migrations, bundled_migrations, pending_migrations

    if using != configuration().DATABASE:
        return
    ledger = ledger_connection()
    applied = applied_migrations(ledger)
    if not applied or pending_migrations(bundled_migrations(), applied):
        return  # a partial migrate
    catalog = autodiscover()
    with transaction.atomic(using=using):
        catalog.sync_definitions(ledger)
        catalog.sync_schedules(ledger)
