"""``runledger worker``: the supervisor with its processes, or a check that they could start."""

from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from runledger.cli.options import Embedding, LedgerCommand, Session
from runledger.cli.output import print_fields, print_json
from runledger.cli.schema import check_schema_or_exit
from runledger.cli.values import DURATION
from runledger.core.errors import InvalidIdentifier
from runledger.core.gate import check_identifier
from runledger.runtime.app import idle_queues, queues_of
from runledger.runtime.config import JobsConfig
from runledger.runtime.health import parse_address
from runledger.runtime.roles import preload
from runledger.runtime.supervisor import Supervisor

Function = TypeVar("Function", bound=Callable[..., Any])

_SETTINGS = {one.name: one.metadata for one in fields(JobsConfig)}


def _setting(*names: str, kind: click.ParamType[Any], default: str | None = None) -> Callable[[Function], Function]:
    """An option for a setting of ``JobsConfig``: help, variable and default come from its table."""
    setting = names[-1]
    metadata = _SETTINGS[setting]
    known = next(str(one.default) for one in fields(JobsConfig) if one.name == setting)
    text = f"{metadata['help']}  [env var: {metadata['variable']}; default: {default or known}]"
    return click.option(*names, type=kind, help=text)


def _queues(_ctx: click.Context, _option: click.Parameter, text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        return tuple(dict.fromkeys(check_identifier(name.strip(), field="a queue") for name in text.split(",")))
    except InvalidIdentifier as error:
        raise click.BadParameter(str(error)) from None


@click.command(cls=LedgerCommand)
@_setting("-p", "--processes", "max_global_concurrency", kind=click.INT, default="the number of processors")
@click.option("--queues", metavar="A,B", callback=_queues, help="Serve only these queues.  [default: all]")
@click.option("--drain", "is_draining", is_flag=True, help="Exit when no job is due, running or waiting for a retry.")
@click.option("--preload", "is_preloading", is_flag=True, help="Import the app once; workers share its memory.")
@click.option("--no-scheduler", is_flag=True, help="Leave the firing of schedules to others, as with --drain.")
@click.option("--no-reaper", is_flag=True, help="Leave the recovery of lapsed leases to other hosts.")
@click.option("--no-sync", is_flag=True, help="Do not store the definitions and schedules of the catalog at the start.")
@_setting("--shutdown-timeout", "shutdown_timeout_seconds", kind=DURATION, default="30s")
@_setting("--max-jobs-per-process", "max_jobs_per_process", kind=click.INT)
@_setting("--max-memory", "max_memory_mb", kind=click.INT)
@_setting("--max-memory-hard", "max_memory_hard_mb", kind=click.INT)
@click.option(
    "--health-addr",
    "health_address",
    metavar="HOST:PORT",
    help="Answer /livez, /readyz and /metrics there.  [default: nowhere]",
)
@_setting("--lease-ttl", "lease_ttl_seconds", kind=DURATION, default="60s")
@_setting("--poll-interval", "poll_interval_ms", kind=DURATION, default="500ms")
@click.option("--check", "is_check", is_flag=True, help="Check settings, app, database and schema, then exit.")
@click.pass_obj
def worker(
    session: Session,
    *,
    max_global_concurrency: int | None,
    queues: tuple[str, ...] | None,
    is_draining: bool,
    is_preloading: bool,
    no_scheduler: bool,
    no_reaper: bool,
    no_sync: bool,
    shutdown_timeout_seconds: float | None,
    max_jobs_per_process: int | None,
    max_memory_mb: int | None,
    max_memory_hard_mb: int | None,
    health_address: str | None,
    lease_ttl_seconds: float | None,
    poll_interval_ms: float | None,
    is_check: bool,
) -> None:
    """Run jobs, in worker processes of this host.

    Each process runs one job at a time. TERM or Ctrl-C finishes the running jobs and ends with 0, or with 6 when the
    shutdown timeout had to cut them off. Every JOBS_* variable is read; options win.

    \b
    Examples:
      runledger worker --app myapp.jobs:catalog
      runledger worker --app myapp.jobs:catalog -p 4 --queues mail,default
      runledger worker --app myapp.jobs:catalog --drain
      runledger worker --app myapp.jobs:catalog --check
    """
    config = JobsConfig.from_env().with_options(
        max_global_concurrency=max_global_concurrency,
        shutdown_timeout_seconds=_whole(shutdown_timeout_seconds, "--shutdown-timeout"),
        max_jobs_per_process=max_jobs_per_process,
        max_memory_mb=max_memory_mb,
        max_memory_hard_mb=max_memory_hard_mb,
        lease_ttl_seconds=_whole(lease_ttl_seconds, "--lease-ttl"),
        poll_interval_ms=_whole(poll_interval_ms, "--poll-interval", parts=1_000),
    )
    if is_check:
        return _check(session, config, queues, health_address, is_preloading=is_preloading)
    supervisor = Supervisor(
        app=session.required_app(),
        database_url=session.required_url(),
        schema=session.schema or None,
        config=config,
        queues=queues,
        is_draining=is_draining,
        is_preloading=is_preloading,
        is_preloaded=click.get_current_context().find_object(Embedding) is not None,
        with_reaper=not no_reaper,
        with_scheduler=not no_scheduler,
        with_sync=not no_sync,
        health_address=health_address,
        log_level=session.process_log_level,
        log_format=session.log_format,
    )
    raise click.exceptions.Exit(supervisor.run_until_shutdown())


def _whole(seconds: float | None, option: str, *, parts: int = 1) -> int | None:
    """The duration in whole parts of a second."""
    if seconds is None:
        return None
    count = round(seconds * parts, 6)
    if count != int(count):
        raise click.UsageError(f"{option} must be whole {'seconds' if parts == 1 else 'milliseconds'}")
    return int(count)


def _check(
    session: Session,
    config: JobsConfig,
    queues: tuple[str, ...] | None,
    health_address: str | None,
    *,
    is_preloading: bool,
) -> None:
    """Everything that a worker needs is there, and is named; whatever is not raises, as it would when it starts."""
    if health_address is not None:
        parse_address(health_address)
    if is_preloading:
        preload(session.required_app())
    catalog = session.catalog()
    for name in idle_queues(catalog, queues):
        known = ", ".join(queues_of(catalog))
        session.say(f"Warning: no job type of the catalog is in queue {name!r} (queues: {known})")
    with session.reading() as ledger:
        check_schema_or_exit(session, ledger)
        found = {
            "app": session.app,
            "job_types": catalog.job_types,
            "queues": "all" if queues is None else queues,
            "processes": config.max_global_concurrency,
            "database": ledger.database.target,
            "schema": ledger.database.schema,
        }
    print_json(found) if session.is_json else print_fields(list(found.items()))
