"""Runledger at home in Django: migrations, enqueue on Django's own transaction, worker command, checks, admin, tasks.

``INSTALLED_APPS += ["runledger.contrib.django"]`` is all it needs. Names are loaded when they are first used, because
Django imports this package before its settings and apps are ready.
"""

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from runledger.contrib.django.connections import ledger_connection
    from runledger.contrib.django.enqueueing import enqueue, enqueue_many
    from runledger.contrib.django.registry import autodiscover, catalog, job
else:
    _LOADED_ON_USE: Final = {
        "autodiscover": "runledger.contrib.django.registry",
        "catalog": "runledger.contrib.django.registry",
        "enqueue": "runledger.contrib.django.enqueueing",
        "enqueue_many": "runledger.contrib.django.enqueueing",
        "job": "runledger.contrib.django.registry",
        "ledger_connection": "runledger.contrib.django.connections",
    }

    def __getattr__(name: str) -> object:
        if name not in _LOADED_ON_USE:
            raise AttributeError(f"module 'runledger.contrib.django' has no attribute {name!r}")
        value = getattr(importlib.import_module(_LOADED_ON_USE[name]), name)
        globals()[name] = value
        return value


__all__ = ["autodiscover", "catalog", "enqueue", "enqueue_many", "job", "ledger_connection"]
