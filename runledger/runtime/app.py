"""``MODULE:ATTR``: find the catalog of an application, and say exactly why when that fails."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from runledger.core.catalog import JobCatalog
from runledger.core.errors import AppNotImportable


def load_catalog(app: str) -> JobCatalog:
    """The catalog that ``app`` names; the current directory is importable.

    A callable without arguments that returns a catalog is accepted too. Raises AppNotImportable with the true
    exception and the line it came from; exceptions that end the interpreter count as failures.
    """
    module_name, separator, attribute = app.partition(":")
    parts = module_name.split(".")
    if not separator or not attribute.isidentifier() or not all(part.isidentifier() for part in parts):
        raise AppNotImportable(f"{app!r} is not of the form MODULE:ATTRIBUTE, for example myapp.jobs:catalog")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), attribute)
        catalog = found() if callable(found) and not isinstance(found, JobCatalog) else found
    except BaseException as error:  # importing runs the app's own code, which may raise anything, SystemExit included
        raise AppNotImportable(f"cannot import {app!r}: {_true_reason(error)}") from error
    if not isinstance(catalog, JobCatalog):
        raise AppNotImportable(f"{app!r} is a {type(catalog).__name__}, not a JobCatalog")
    return catalog


def idle_queues(catalog: JobCatalog, queues: Sequence[str] | None) -> tuple[str, ...]:
    """Those of ``queues`` that no job type of the catalog is in."""
    return tuple(name for name in queues or () if name not in queues_of(catalog))


def queues_of(catalog: JobCatalog) -> tuple[str, ...]:
    """The queues of the catalog's job types, by name."""
    return tuple(sorted({one.queue for one in catalog.definitions}))


def _true_reason(error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    place = f" ({frames[-1].filename}, line {frames[-1].lineno})" if len(frames) > 1 else ""
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
    return f"{type(error).__name__}: {error}{place}"
