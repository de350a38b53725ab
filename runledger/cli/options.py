"""The options that every subcommand takes, and the session that they make.

People type them behind the subcommand, so each subcommand has them; ``LedgerCommand`` adds them and hands its function
a ``Session`` instead of twelve arguments.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from runledger.cli.exits import (
    ConfirmationMissing,
    ExitCode,
    complain_of,
    complain_of_unexpected,
    exit_code_of,
)
from runledger.core.errors import InvalidConfiguration, RunledgerError

if TYPE_CHECKING:
    from runledger.core.catalog import JobCatalog
    from runledger.database.ledger import Ledger

URL_HINT = (
    "give -d/--database-url, set RUNLEDGER_DATABASE_URL or DATABASE_URL, "
    "or run `runledger db start` and use the URL it prints"
)
APP_EXAMPLE = "-A/--app MODULE:ATTR, for example --app myapp.jobs:catalog, or RUNLEDGER_APP"


@dataclass(frozen=True, slots=True)
class Embedding:
    """What a program that contains this command line knows without being told, and how people call us there. The
    command line and our own variables win over it; DATABASE_URL does not, because the program has read that for itself.
    """

    app: str
    database_url: str
    schema: str
    program: str


@dataclass(frozen=True, slots=True)
class Session:
    """What the shared options of one call say."""

    app: str | None
    database_url: str | None
    schema: str | None
    is_json: bool
    color: str
    is_quiet: bool
    is_verbose: bool
    log_level: str | None
    log_format: str
    is_confirmed: bool

    @contextmanager
    def reading(self, *, timeout_seconds: float | None = None) -> Iterator["Ledger"]:
        """The database of this call. Its answers are waited for without end, unless a timeout is given: people ask
        for much at once, and end what takes too long. Raises InvalidConfiguration when none is named."""
        from runledger.database.ledger import Ledger  # brings the driver; help and usage errors do without

        url, schema = self.required_url(), self.schema or None
        with Ledger(url, schema=schema, pool_size=1, timeout_seconds=timeout_seconds) as ledger:
            yield ledger

    @contextmanager
    def changing(self) -> Iterator["Ledger"]:
        """The same for a command that changes something: its target has been named on standard error."""
        with self.reading() as ledger:
            self.say(f"target: {ledger.database.target}, schema {ledger.database.schema}")
            yield ledger

    def required_url(self) -> str:
        """The option, else the environment; blank is the same as missing."""
        from runledger.database.settings import url_from_environment

        url = (self.database_url or "").strip() or url_from_environment()
        if not url:
            raise InvalidConfiguration("no database is named", hint=URL_HINT)
        return url

    def required_app(self) -> str:
        """The option or RUNLEDGER_APP. Raises a usage error without either."""
        if not self.app:
            raise click.UsageError(f"this command needs {APP_EXAMPLE}")
        return self.app

    def catalog(self) -> "JobCatalog":
        """The catalog of the app. Raises AppNotImportable, or a usage error when no app is named."""
        from runledger.runtime.app import load_catalog

        return load_catalog(self.required_app())

    @property
    def process_log_level(self) -> str:
        """--log-level, else what --verbose and --quiet mean for it."""
        return self.log_level or ("debug" if self.is_verbose else "warning" if self.is_quiet else "info")

    def say(self, text: str) -> None:
        """Talk, on standard error; silent with --quiet, and with --json, whose errors a program reads from there."""
        if not self.is_quiet and not self.is_json:
            click.echo(text, err=True)

    def confirm(self, question: str) -> None:
        """Returns when somebody agreed. Raises ConfirmationMissing when nobody did, or nobody is there to ask."""
        if self.is_confirmed:
            return
        if not sys.stdin.isatty():
            raise ConfirmationMissing(f"{question}: nobody is there to confirm it", hint="add --yes")
        if not click.confirm(f"{question}. Continue?", default=False, err=True):
            raise ConfirmationMissing("not confirmed, nothing was changed")


SHARED_OPTIONS: tuple[click.Option, ...] = (
    click.Option(
        ["-A", "--app"],
        metavar="MODULE:ATTR",
        envvar="RUNLEDGER_APP",
        show_envvar=True,
        help="The catalog of the application; the current directory is importable.",
    ),
    click.Option(
        ["-d", "--database-url"],
        metavar="URL",
        envvar=["RUNLEDGER_DATABASE_URL", "DATABASE_URL"],
        show_envvar=True,
        help="The database, as postgresql://user@host/name.",
    ),
    click.Option(
        ["--schema"],
        metavar="NAME",
        envvar="RUNLEDGER_SCHEMA",
        show_envvar=True,
        show_default="runledger",
        help="The schema that holds the tables.",
    ),
    click.Option(["--json", "is_json"], is_flag=True, help="One JSON document instead of text; errors too."),
    click.Option(
        ["--color"],
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="Colors; auto looks at the terminal, NO_COLOR and FORCE_COLOR.",
    ),
    click.Option(["-q", "--quiet", "is_quiet"], is_flag=True, help="Print data and errors only."),
    click.Option(["-v", "--verbose", "is_verbose"], is_flag=True, help="Say more: causes of errors, debug logs."),
    click.Option(
        ["--log-level"],
        type=click.Choice(["debug", "info", "warning", "error"]),
        envvar="RUNLEDGER_LOG_LEVEL",
        show_envvar=True,
        show_default="info",
        help="The least that processes log.",
    ),
    click.Option(
        ["--log-format"],
        type=click.Choice(["auto", "text", "json"]),
        default="auto",
        envvar="RUNLEDGER_LOG_FORMAT",
        show_envvar=True,
        show_default=True,
        help="How processes log; auto: text on a terminal, else JSON.",
    ),
    click.Option(["-y", "--yes", "is_confirmed"], is_flag=True, help="Do not ask for confirmation."),
)


class LedgerCommand(click.Command):
    """A command with the shared options, whose function gets a ``Session``; what the library refuses becomes one line
    and an exit code."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        *own, help_option = super().get_params(ctx)
        return [*own, *SHARED_OPTIONS, help_option]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        parameters = [one for one in self.get_params(ctx) if isinstance(one, click.Option)]
        own = [one for one in parameters if one in self.params]
        shared = [one for one in parameters if one not in self.params]
        for title, section in (("Options", own), ("Shared options", shared)):
            records = [record for one in section if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        given = {option.name: ctx.params.pop(option.name) for option in SHARED_OPTIONS if option.name}
        session = Session(**given | _embedded(ctx))
        ctx.obj = session
        ctx.color = chosen_color(session.color)
        with _errors_told(session):
            result = super().invoke(ctx)
            sys.stdout.flush()  # so that a reader who has gone is noticed while we can still say so
            return result


class LedgerGroup(click.Group):
    """A group whose subcommands take the shared options."""

    command_class = LedgerCommand
    group_class = type


def _embedded(ctx: click.Context) -> dict[str, str]:
    """What the program around this command line says of the options that nobody gave."""
    embedding = ctx.find_object(Embedding)
    if embedding is None:
        return {}
    known = {"app": embedding.app, "database_url": embedding.database_url, "schema": embedding.schema}
    return {
        name: value
        for name, value in known.items()
        if ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE
        and not os.environ.get(f"RUNLEDGER_{name.upper()}")
    }


def chosen_color(choice: str) -> bool | None:
    """Colors always, never, or (None) wherever a terminal is; a blank variable counts as unset."""
    if choice != "auto":
        return choice == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return True if os.environ.get("FORCE_COLOR") else None


@contextmanager
def _errors_told(session: Session) -> Iterator[None]:
    try:
        yield
    except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
        raise
    except RunledgerError as error:
        complain_of(error, is_json=session.is_json, is_verbose=session.is_verbose)
        raise click.exceptions.Exit(exit_code_of(error)) from error
    except Exception as error:  # a defect; people get a line, and the traceback when they ask for it
        complain_of_unexpected(error, is_json=session.is_json, is_verbose=session.is_verbose)
        raise click.exceptions.Exit(ExitCode.UNEXPECTED) from error
