"""``flask runledger ARGUMENTS``: the command ``runledger`` with the app's catalog, database and schema.

The process is replaced: a supervisor must not carry an imported application, its threads and its connections. Workers
load the application themselves.
"""

import os
import sys

import click
from flask import current_app
from flask.cli import ScriptInfo

from runledger.core.errors import InvalidConfiguration

WORKER_APP = "runledger.contrib.flask.worker_app:load_catalog"
APP_VARIABLE = "FLASK_APP"


@click.command(
    "runledger",
    short_help="Durable jobs: worker, migrate, and every other command.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def runledger_command(context: click.Context, arguments: tuple[str, ...]) -> None:
    """The command ``runledger`` on the database of this app; see ``flask runledger --help``."""
    environment = environment_of_app(context.ensure_object(ScriptInfo))
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, "-m", "runledger", *arguments], environment)  # noqa: S606 - no shell


def environment_of_app(info: ScriptInfo) -> dict[str, str]:
    """The environment in which ``runledger`` means the current app; what RUNLEDGER_APP names is left as it is."""
    from runledger.contrib.flask.extension import current_binding  # which imports this module

    binding = current_binding()
    environment = dict(os.environ)
    environment.setdefault("RUNLEDGER_APP", WORKER_APP)
    if info.app_import_path:
        environment[APP_VARIABLE] = info.app_import_path
    try:
        environment["RUNLEDGER_DATABASE_URL"] = binding.database_url
    except InvalidConfiguration:  # an option may name it; else the command says what is missing
        current_app.logger.debug("the app names no database for runledger")
    if binding.schema:
        environment["RUNLEDGER_SCHEMA"] = binding.schema
    return environment
