"""``runledger schedule``: when schedules fire, and what operators may do with them."""

from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import click

from runledger.cli.completing import job_types, schedule_names
from runledger.cli.listings import print_list
from runledger.cli.options import LedgerGroup, Session
from runledger.cli.output import Column, print_json
from runledger.cli.values import MOMENT, organization_filter
from runledger.core.cron import check_timezone, next_fire_at
from runledger.core.errors import ScheduleNotFound
from runledger.core.jobs import Scope
from runledger.core.schedules import JobSchedule
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.firing import trigger_job_schedule
from runledger.postgres.schedule_reads import get_job_schedule, list_job_schedules
from runledger.postgres.schedules import delete_job_schedule, set_job_schedule_active

SCHEDULE_COLUMNS: tuple[Column[JobSchedule], ...] = (
    Column("NAME", lambda schedule: schedule.name),
    Column("TYPE", lambda schedule: schedule.job_type),
    Column("CRON", lambda schedule: schedule.cron),
    Column("ZONE", lambda schedule: schedule.timezone),
    Column("ACTIVE", lambda schedule: schedule.is_active),
    Column("NEXT", lambda schedule: schedule.next_fire_at),
    Column("LAST", lambda schedule: schedule.last_fired_at),
    Column("LAST ERROR", lambda schedule: schedule.last_error_code),
)
FIRING_COLUMNS: tuple[Column[tuple[datetime, datetime]], ...] = (
    Column("UTC", lambda moments: moments[0]),
    Column("LOCAL", lambda moments: moments[1].isoformat(sep=" ")),
)
MOST_FIRINGS = 1_000

names_argument = click.argument("names", metavar="NAME...", shell_complete=schedule_names, nargs=-1, required=True)


@click.group(cls=LedgerGroup)
def schedule() -> None:
    """When schedules fire, and their switches."""


@schedule.command("list")
@organization_filter
@click.option("--type", "job_type", metavar="TYPE", shell_complete=job_types, help="Only schedules of this job type.")
@click.option("--after", metavar="NAME", help="Continue after this name, the last of a page.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=100, show_default=True, help="Most rows to print.")
@click.pass_obj
def list_(session: Session, *, scope: Scope, job_type: str | None, after: str | None, limit: int) -> None:
    """List the stored schedules, by name."""
    with session.reading() as ledger, ledger.database.autocommit() as connection:
        found = list_job_schedules(connection, scope=scope, job_type=job_type, after=after, limit=limit)
    print_list(session, found, SCHEDULE_COLUMNS, document={"schedules": found})


@schedule.command("next")
@click.argument("expression", metavar="EXPR")
@click.option("-n", "count", type=click.IntRange(1, MOST_FIRINGS), default=5, show_default=True, help="How many.")
@click.option("--timezone", metavar="ZONE", default="UTC", show_default=True, help="Whose wall clocks EXPR means.")
@click.option("--after", type=MOMENT, metavar="TIME", help="Begin after this time.  [default: now]")
@click.pass_obj
def next_(session: Session, *, expression: str, count: int, timezone: str, after: datetime | None) -> None:
    """Print when a cron expression fires.

    Needs no database. Five fields (minute, hour, day of month, month, day of week), six with the seconds first, or
    @hourly, @daily, @weekly, @monthly, @yearly. Where both days are restricted, either one is enough.

    \b
    Examples:
      runledger schedule next '0 3 * * mon-fri'
      runledger schedule next '30 2 * * *' -n 3 --timezone Europe/Berlin --after 2027-03-27T12:00:00Z
    """
    zone = UTC if check_timezone(timezone) == "UTC" else ZoneInfo(timezone)
    moment = datetime.now(UTC) if after is None else after
    moments = []
    for _ in range(count):
        moment = next_fire_at(expression, timezone, moment)
        moments.append((moment, moment.astimezone(zone)))
    document = {"expression": expression, "timezone": timezone, "next": [one for one, _ in moments]}
    print_list(session, moments, FIRING_COLUMNS, document=document)


@schedule.command()
@names_argument
@click.pass_obj
def pause(session: Session, *, names: tuple[str, ...]) -> None:
    """Let schedules fire no more; a worker that starts does not undo it."""
    _change(session, names, lambda connection, name: set_job_schedule_active(connection, name, is_active=False))


@schedule.command()
@names_argument
@click.pass_obj
def resume(session: Session, *, names: tuple[str, ...]) -> None:
    """Let schedules fire again.

    What became due meanwhile is treated as each schedule's policy for missed slots says.
    """
    _change(session, names, lambda connection, name: set_job_schedule_active(connection, name, is_active=True))


@schedule.command()
@click.argument("name")
@click.pass_obj
def trigger(session: Session, *, name: str) -> None:
    """Enqueue a schedule's job now, and print its id.

    Also while the schedule is paused. Its next regular firing stays where it is.
    """
    with session.changing() as ledger, ledger.begin() as connection:
        job = trigger_job_schedule(connection, name)
    print_json(job) if session.is_json else click.echo(str(job.job_id))


@schedule.command()
@names_argument
@click.pass_obj
def delete(session: Session, *, names: tuple[str, ...]) -> None:
    """Delete schedules; their jobs stay.

    A schedule that a catalog declares comes back with the next worker that starts; pause it instead.
    """
    with session.changing() as ledger, ledger.begin() as connection:
        for name in sorted(set(names)):
            _require(delete_job_schedule(connection, name), name)
    session.say(f"{len(set(names))} deleted")
    if session.is_json:
        print_json({"deleted": sorted(set(names))})


def _change(session: Session, names: tuple[str, ...], change: Callable[[LedgerConnection, str], bool]) -> None:
    """Every schedule is changed, or none; printed as they are afterwards."""
    with session.changing() as ledger, ledger.begin() as connection:
        for name in sorted(set(names)):
            _require(change(connection, name), name)
        changed = [get_job_schedule(connection, name) for name in sorted(set(names))]
    print_list(session, changed, SCHEDULE_COLUMNS, document={"schedules": changed})


def _require(is_there: bool, name: str, /) -> None:
    if not is_there:
        raise ScheduleNotFound(f"no schedule {name!r} is stored")
