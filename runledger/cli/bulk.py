"""Commands about the jobs of a filter: how many there are, whether to go on, and what came of it."""

import sys
from collections.abc import Callable, Sequence

import click

from runledger.cli.options import Session
from runledger.cli.output import print_fields, print_json
from runledger.cli.values import Choice
from runledger.core.bulk import ChangedJobs, filters_by_status
from runledger.core.errors import RunledgerError
from runledger.core.states import JobStatus
from runledger.database.bulk import Watch
from runledger.database.ledger import Ledger
from runledger.postgres.bulk import COUNTED, count_jobs

all_option = click.option("--all", "is_all", is_flag=True, help="All jobs that can be changed so.")


def is_about_ids(job_ids: Sequence[str], choice: Choice, *, is_all: bool) -> bool:
    """Whether jobs are named by their ids. Raises a usage error unless they are chosen in exactly one way: by ids, by
    a filter, or all of them."""
    has_filter = not choice.wanted.is_empty
    if job_ids and (has_filter or is_all):
        raise click.UsageError("give ids, or filters or --all, not both")
    if is_all and has_filter:
        raise click.UsageError("give filters or --all, not both")
    if not job_ids and not is_all and choice.is_everything:
        raise click.UsageError("name jobs by their ids, or give a filter such as --type, or --all")
    return bool(job_ids)


def change_matching(
    session: Session,
    choice: Choice,
    statuses: tuple[JobStatus, ...],
    will_be: str,
    change: Callable[[Ledger, Watch], ChangedJobs],
) -> None:
    """The jobs that match are counted, and changed when somebody agrees; what came of it is printed."""
    wanted = filters_by_status(choice.wanted, statuses)
    with session.changing() as ledger:
        with ledger.database.autocommit() as connection:
            counted = sum(count_jobs(connection, one, scope=choice.scope) for one in wanted)
        number = f"more than {COUNTED:,}" if counted > COUNTED else f"{counted:,}"
        session.say(f"{number} jobs match")
        if counted:
            session.confirm(f"{number} jobs {will_be}")
        _print(session, _changed(session, ledger, change, counted) if counted else ChangedJobs())


def _changed(
    session: Session, ledger: Ledger, change: Callable[[Ledger, Watch], ChangedJobs], counted: int
) -> ChangedJobs:
    done = ChangedJobs()
    is_silent = session.is_json or session.is_quiet or not sys.stderr.isatty()
    with click.progressbar(length=counted, file=sys.stderr, hidden=is_silent) as bar:

        def watch(so_far: ChangedJobs) -> None:
            nonlocal done
            bar.update(so_far.matched - done.matched)
            done = so_far

        try:
            return change(ledger, watch)
        except (KeyboardInterrupt, RunledgerError):
            session.say(f"stopped: {done.changed:,} jobs were changed, in whole batches; the rest is as it was")
            raise


def _print(session: Session, done: ChangedJobs) -> None:
    counts = {
        "matched": done.matched,
        "changed": done.changed,
        "skipped": done.skipped,
        "of_workflows": done.of_workflows,
    }
    if session.is_json:
        print_json(counts)
        return
    print_fields(list(counts.items()))
    if done.of_workflows:
        session.say("jobs of workflow runs were left out: they are changed with their run, see runledger workflow")
    if done.skipped > done.of_workflows:
        session.say("what was skipped had moved on, was held, or need not change; the same command may be repeated")
