"""``manage.py runledger ARGUMENTS``: the command ``runledger`` with the project's app, database and schema."""

import argparse
import sys
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from runledger.cli.exits import ExitCode, complain_of
from runledger.cli.main import run
from runledger.cli.options import Embedding
from runledger.contrib.django.configuration import configuration
from runledger.contrib.django.connections import close_before_fork, database_conninfo
from runledger.core.errors import InvalidConfiguration

PROGRAM = "manage.py runledger"


class Command(BaseCommand):
    """Passes everything on, but for the two options that Django takes before any command."""

    help = "Durable jobs on PostgreSQL: the command runledger, on the database of this project."
    requires_system_checks = ()

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """For ``call_command``: whatever follows is ours."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def run_from_argv(self, argv: list[str]) -> None:
        """The process ends with the exit code of ``runledger``; settings that are wrong are one line."""
        arguments = _without_django_options(argv[2:])
        try:
            code = _run(arguments)
        except (ImproperlyConfigured, InvalidConfiguration) as error:
            wrong = error if isinstance(error, InvalidConfiguration) else InvalidConfiguration(str(error))
            complain_of(wrong, is_json="--json" in arguments, is_verbose=False)
            code = ExitCode.CONFIGURATION
        sys.exit(code)

    def print_help(self, prog_name: str, subcommand: str) -> None:
        """For ``manage.py help runledger``."""
        run(["--help"])

    def handle(self, *args: Any, **options: Any) -> None:
        """For ``call_command``. Raises CommandError with the exit code as ``returncode``."""
        try:
            code = _run(options["arguments"])
        except (ImproperlyConfigured, InvalidConfiguration) as error:
            raise CommandError(str(error), returncode=ExitCode.CONFIGURATION) from error
        if code:
            raise CommandError(f"runledger ended with exit code {code}", returncode=code)


def _run(arguments: list[str]) -> int:
    """The exit code. Raises ImproperlyConfigured or InvalidConfiguration for settings that are wrong."""
    configured = configuration()
    embedding = Embedding(configured.APP, database_conninfo(configured.DATABASE), configured.SCHEMA, PROGRAM)
    close_before_fork()
    return run(arguments, embedding)


def _without_django_options(arguments: list[str]) -> list[str]:
    """The arguments after ``--settings`` and ``--pythonpath`` have had their effect."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    return parser.parse_known_args(arguments)[1]
