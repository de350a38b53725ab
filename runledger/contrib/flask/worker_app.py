"""What a worker of a Flask application runs: ``--app runledger.contrib.flask.worker_app:load_catalog``.

``flask runledger`` names it by default. The command ``runledger`` may name it too, with FLASK_APP set.
"""

import os

from flask.cli import ScriptInfo

from runledger.contrib.flask.commands import APP_VARIABLE
from runledger.contrib.flask.extension import EXTENSION, Binding
from runledger.core.catalog import JobCatalog
from runledger.core.errors import InvalidConfiguration


def load_catalog() -> JobCatalog:
    """The catalog of the application that FLASK_APP names, found as ``flask`` finds it: ``MODULE``, ``MODULE:NAME`` or
    ``MODULE:factory()``, else ``wsgi.py`` or ``app.py``. Raises InvalidConfiguration for an app without Runledger."""
    app = ScriptInfo(app_import_path=os.environ.get(APP_VARIABLE)).load_app()
    binding = app.extensions.get(EXTENSION)
    if not isinstance(binding, Binding):
        raise InvalidConfiguration(f"the Flask app {app.name!r} has no Runledger")
    return binding.catalog
