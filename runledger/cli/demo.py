"""``runledger demo``: the demonstration, told on standard error, its figures on standard output."""

import os
import shlex
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from runledger.cli.exits import Complaint, ExitCode, complain, complain_of, exit_code_of
from runledger.cli.output import print_fields, print_json
from runledger.core.errors import RunledgerError
from runledger.demo.long_text import STEPS
from runledger.demo.plan import make_plan
from runledger.demo.report import Report
from runledger.demo.run import demo_home, run_demo

PROGRAM = "runledger"
LINES_OF_PROGRESS = 4


@click.command()
@click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, readable=True, path_type=Path), default=Path()
)
@click.option("-p", "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="Worker processes.")
@click.option("--keep", "is_kept", is_flag=True, help="Leave server and database running, to look around.")
@click.option("--json", "is_json", is_flag=True, help="One JSON document instead of text.")
def demo(directory: Path, *, processes: int, is_kept: bool, is_json: bool) -> None:
    """Show it working, on a database of its own.

    Reads every text file of DIRECTORY (default: this one) in jobs of their own, makes some of them fail, kills a worker
    in the middle of its work, and compares the result with a plain computation. Needs no database and no container:
    it starts a PostgreSQL of its own below .runledger and stops it at the end. Nothing of yours is changed.

    Exit code 1 when the result is not what it should be.
    """
    try:
        plan = make_plan(directory)
        if not plan.files:
            raise click.BadParameter("there is no text file of at most 256 KiB", param_hint="DIRECTORY")
        report = run_demo(plan, processes=processes, is_kept=is_kept, audience=_Terminal())
    except RunledgerError as error:
        complain_of(error, is_json=is_json, is_verbose=False)
        raise click.exceptions.Exit(exit_code_of(error)) from error
    _show(report, is_json=is_json)
    if not report.is_correct:
        raise click.exceptions.Exit(ExitCode.UNEXPECTED)


class _Terminal:
    """Lines on standard error, and a progress bar where it is a terminal."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def watching(self, total: int) -> Iterator[Callable[[int, str], None]]:
        if not sys.stderr.isatty():
            yield _told_in_lines(total)
            return
        with click.progressbar(
            length=total, label="jobs", file=sys.stderr, show_pos=True, item_show_func=lambda note: note or ""
        ) as bar:
            yield lambda done, note: bar.update(max(0, done - bar.pos), note)


def _told_in_lines(total: int) -> Callable[[int, str], None]:
    """Something is said when another quarter is done, and when something else happened."""
    said = {"quarter": 0, "note": ""}

    def tell(done: int, note: str) -> None:
        quarter = done * LINES_OF_PROGRESS // total if total else LINES_OF_PROGRESS
        if (quarter, note) != (said["quarter"], said["note"]):
            click.echo(note if note != said["note"] else f"{done} of {total} jobs are done", err=True)
            said.update(quarter=quarter, note=note)

    return tell


def _show(report: Report, *, is_json: bool) -> None:
    if is_json:
        print_json(report)
    else:
        click.echo(err=True)
        _print_figures(report)
        click.echo(err=True)
    if report.differences:
        complain(Complaint("demo.wrong_result", "; ".join(report.differences)), is_json=is_json)
    elif not is_json:
        verdict = click.style("Right:", fg="green")
        click.echo(f"{verdict} every result equals the plain computation, and was written exactly once", err=True)
    if not is_json:
        _say_where_to_look(report)


def _print_figures(report: Report) -> None:
    print_fields(
        [
            ("files", report.files),
            ("words counted", report.words),
            ("jobs", report.jobs),
            ("attempts", report.attempts),
            ("failed once, retried, succeeded", report.retried),
            ("killed with SIGKILL, resumed, succeeded", report.recovered),
            ("resumed at step", f"{report.resumed_at_step} of {STEPS}"),
            ("dead letters", report.dead_lettered),
            ("seconds", f"{report.seconds:.2f}"),
            ("jobs per second", f"{report.jobs_per_second:.0f}"),
        ]
    )


def _say_where_to_look(report: Report) -> None:
    if report.database_url is None:
        click.echo(f"`{_how_to_keep()}` leaves the database running, to look around", err=True)
        return
    program = _program()
    home = shlex.quote(str(demo_home().parent))
    click.echo("To look around:", err=True)
    for line in (
        f"export RUNLEDGER_DATABASE_URL={shlex.quote(report.database_url)}",
        f"{program} job list",
        f"{program} job show {report.killed_job_id}",
        f"{program} dead list",
        f"RUNLEDGER_HOME={home} {program} db stop",
    ):
        click.echo(f"  {line}", err=True)


def _how_to_keep() -> str:
    """What to type instead, to whom make is known as the way in."""
    return "make demo ARGS=--keep" if "MAKELEVEL" in os.environ else f"{PROGRAM} demo --keep"


def _program() -> str:
    """How this command is called: its name, or its path where a shell would not find it."""
    installed = Path(sysconfig.get_path("scripts")) / PROGRAM
    if not installed.exists():
        return f"{sys.executable} -m runledger"
    if shutil.which(PROGRAM) == str(installed):
        return PROGRAM
    return str(installed.relative_to(Path.cwd())) if installed.is_relative_to(Path.cwd()) else str(installed)
