"""The command ``runledger``: which subcommands there are, where each lives, and how the process ends.

A subcommand's module is imported when it is called: the database driver and SQLAlchemy take half a second, and neither
help nor ``--version`` needs them.
"""

import gc
import importlib
import importlib.util
import os
import sys
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click
from click.shell_completion import CompletionItem, shell_complete

from runledger.cli.exits import Complaint, ExitCode, complain, complain_of_unexpected
from runledger.version import package_version

if TYPE_CHECKING:
    from runledger.cli.options import Embedding

PROGRAM = "runledger"
COMPLETION_VARIABLE = "_RUNLEDGER_COMPLETE"


class Entry(NamedTuple):
    """A subcommand before it is imported. ``purpose`` is the first line of its help."""

    section: str
    name: str
    module: str
    attribute: str
    purpose: str


ENTRIES = (
    Entry("Start", "demo", "runledger.cli.demo", "demo", "Show it working, on a database of its own."),
    Entry("Start", "init", "runledger.cli.init", "init", "Write an application to begin with."),
    Entry("Start", "db", "runledger.cli.local", "db", "The embedded development database."),
    Entry("Start", "dev", "runledger.cli.dev", "dev", "Run an application while you write it."),
    Entry("Run", "worker", "runledger.cli.worker", "worker", "Run jobs, in worker processes of this host."),
    Entry("Run", "scheduler", "runledger.cli.scheduler", "scheduler", "Fire schedules when they are due."),
    Entry("Run", "reaper", "runledger.cli.reaper", "reaper", "Recover the jobs of hosts that were lost."),
    Entry("Schema", "migrate", "runledger.cli.schema", "migrate_schema", "Bring the schema up to date."),
    Entry("Jobs", "enqueue", "runledger.cli.enqueue", "enqueue", "Enqueue one job."),
    Entry("Jobs", "job", "runledger.cli.jobs", "job", "List, show and change jobs."),
    Entry("Jobs", "dead", "runledger.cli.dead", "dead", "List, requeue and purge dead letters."),
    Entry("Jobs", "workflow", "runledger.cli.workflows", "workflow", "List, show and change workflow runs."),
    Entry("Jobs", "definition", "runledger.cli.definitions", "definition", "The settings of job types."),
    Entry("Jobs", "config", "runledger.cli.configs", "config", "The runtime configs of job types."),
    Entry("Jobs", "schedule", "runledger.cli.schedules", "schedule", "When schedules fire, and their switches."),
    Entry("Operate", "prune", "runledger.cli.prune", "prune", "Delete what ended long ago."),
    Entry("Operate", "stats", "runledger.cli.stats", "stats", "Show where the jobs are, and how attempts went lately."),
    Entry("Operate", "doctor", "runledger.cli.doctor", "doctor", "Check database, schema, processes and stored state."),
    Entry("Operate", "preflight", "runledger.cli.preflight", "preflight", "Say what waits that new code cannot run."),
    Entry("Operate", "health", "runledger.cli.health", "health", "Say whether jobs would run."),
    Entry("Operate", "workers", "runledger.cli.workers", "workers", "Show the worker processes of all hosts."),
    Entry("Other", "completion", "runledger.cli.completion", "completion", "Print the completion script of a shell."),
    Entry("Other", "version", "runledger.cli.versions", "version", "Print the versions in use."),
)


class LazyGroup(click.Group):
    """A group whose subcommands are named by ``ENTRIES`` and imported when called; one whose module is not there does
    not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in _present_entries()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((one for one in _present_entries() if one.name == cmd_name), None)
        if entry is None:
            return None
        return _imported(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section, entries in groupby(_present_entries(), key=lambda entry: entry.section):
            with formatter.section(section):
                formatter.write_dl([(entry.name.ljust(10), entry.purpose) for entry in entries])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [
            CompletionItem(entry.name, help=entry.purpose)
            for entry in _present_entries()
            if entry.name.startswith(incomplete)
        ]


def _present_entries() -> list[Entry]:
    return [entry for entry in ENTRIES if importlib.util.find_spec(entry.module) is not None]


def _imported(entry: Entry) -> click.Command:
    """The command. The collector rests meanwhile: an import makes no garbage, and looking for it takes 60 ms here and
    as much again at the exit."""
    gc.disable()
    try:
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        gc.freeze()
    finally:
        gc.enable()
    assert isinstance(command, click.Command)
    return command


def _print_version(ctx: click.Context, _option: click.Parameter, is_wanted: bool) -> None:
    if is_wanted and not ctx.resilient_parsing:
        click.echo(f"{PROGRAM} {package_version()}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Version.")
def root() -> None:
    """Durable jobs on PostgreSQL.

    Every command says with --help what it does. Options stand behind the command; data goes to standard output, all
    else to standard error.

    \b
    Examples:
      runledger migrate --database-url postgresql://localhost/app
      runledger worker --app myapp.jobs:catalog
      runledger enqueue mail.receipt '{"order": 7}' --wait

    \b
    Exit codes:
      0 done            1 unexpected            2 usage
      3 a check said no 4 not found             5 refused
      6 time ran out   69 database unreachable 78 bad configuration or app
    130 interrupted
    """


def run(arguments: list[str], embedding: "Embedding | None" = None) -> int:
    """The exit code of ``runledger ARGUMENTS``; whatever has to be said has been said. ``embedding`` is what a program
    around it knows without being told."""
    try:
        code = _invoke(arguments, embedding)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_output()
        return ExitCode.DONE


def _invoke(arguments: list[str], embedding: "Embedding | None") -> int:
    is_json = "--json" in arguments
    try:
        program = PROGRAM if embedding is None else embedding.program
        with root.make_context(program, arguments, obj=embedding) as context:
            root.invoke(context)
        return ExitCode.DONE
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        hint = f"{error.ctx.command_path} --help" if isinstance(error, click.UsageError) and error.ctx else None
        complain(Complaint("cli.usage", error.format_message(), hint), is_json=is_json)
        return ExitCode.USAGE
    except (KeyboardInterrupt, click.Abort):
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:  # a command that does not import; people get a line
        complain_of_unexpected(error, is_json=is_json, is_verbose=not {"-v", "--verbose"}.isdisjoint(arguments))
        return ExitCode.UNEXPECTED


def _forget_output() -> None:
    """Nobody reads us any more; what is still buffered must not fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """The entry of the installed script. Never returns."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # the interpreter's own streams
    if instruction := os.environ.get(COMPLETION_VARIABLE):
        sys.exit(shell_complete(root, {}, PROGRAM, COMPLETION_VARIABLE, instruction))
    sys.exit(run(sys.argv[1:]))
