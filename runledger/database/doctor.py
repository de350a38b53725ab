"""The check-up: every check in a read-only transaction of its own, none longer than its time."""

import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import psycopg

from runledger.core.checkups import CheckResult, CheckStatus, DoctorReport
from runledger.core.errors import ConfigurationError, InvalidRequest, RunledgerError
from runledger.database.database import Database, is_direct, only_read
from runledger.postgres.checks.check import Check
from runledger.postgres.checks.invariants import JOB_INVARIANTS
from runledger.postgres.checks.progress import PROGRESS_CHECKS
from runledger.postgres.checks.settings import SETTING_CHECKS
from runledger.postgres.checks.storage import STORAGE_CHECKS
from runledger.postgres.checks.workflow_invariants import WORKFLOW_INVARIANTS
from runledger.postgres.connection import LedgerConnection, PsycopgConnection
from runledger.postgres.migrations import check_schema
from runledger.postgres.violations import error_for

TIMEOUT_SECONDS = 5.0
LARGEST_OFFSET_SECONDS = 2.0
LEAST_FREE_SHARE = 0.1
DISTRIBUTION = "runledger-pg"


def _schema_state(ledger: LedgerConnection) -> list[str]:
    try:
        check_schema(ledger)
    except ConfigurationError as error:
        return [f"{error} ({error.hint})" if error.hint else str(error)]
    return []


def _clock_offset(ledger: LedgerConnection) -> list[str]:
    driver = _driver(ledger)
    began = time.time()
    row = driver.execute("SELECT extract(epoch FROM clock_timestamp())::double precision").fetchone()
    ended = time.time()
    assert row is not None
    offset = max(began - row[0], row[0] - ended, 0.0)  # what the round trip cannot explain
    if offset <= LARGEST_OFFSET_SECONDS:
        return []
    now = datetime.fromtimestamp(ended, UTC)
    return [f"this machine is {offset:.1f} s away from the database; here it is {now:%Y-%m-%d %H:%M:%S} UTC"]


def _pooler(ledger: LedgerConnection) -> list[str]:
    if is_direct(_driver(ledger)):
        return []
    return ["a transaction pooler is in between: statements are not prepared and idle hosts poll"]


def _module_owner(_ledger: LedgerConnection) -> list[str]:
    owners = set(metadata.packages_distributions().get("runledger", ())) - {DISTRIBUTION}
    return [f"distribution {name!r} installs a module of the same name over ours" for name in sorted(owners)]


def _disk(ledger: LedgerConnection) -> list[str]:
    """Only where the server's directory can be seen from here; a server elsewhere is its own monitoring's business."""
    row = _driver(ledger).execute("SELECT current_setting('data_directory', true), inet_server_addr()").fetchone()
    assert row is not None
    if not row[0] or row[1] is not None or not os.path.isdir(row[0]):
        return []
    disk = os.statvfs(row[0])
    share = disk.f_bavail / disk.f_blocks
    return [f"{share:.0%} of the disk of {row[0]} is free"] if share < LEAST_FREE_SHARE else []


def _driver(ledger: LedgerConnection) -> psycopg.Connection[Any]:
    assert isinstance(ledger, PsycopgConnection)
    return ledger.driver


HOST_CHECKS = (
    Check("schema", "the schema is what this package needs", "runledger migrate", _schema_state),
    Check("clock", "this machine and the database agree on the time", "run NTP on both machines", _clock_offset),
    Check(
        "pooler", "connections are direct", "give the workers a direct address of the server", _pooler, is_advice=True
    ),
    Check(
        "module-owner",
        "the module `runledger` belongs to runledger-pg alone",
        "pip uninstall runledger runledger-pg, then pip install runledger-pg",
        _module_owner,
    ),
    Check("disk", "a tenth of the server's disk is free, as far as it can be seen", "make room", _disk),
)
CHECKS: tuple[Check, ...] = (
    *HOST_CHECKS,
    *SETTING_CHECKS,
    *STORAGE_CHECKS,
    *PROGRESS_CHECKS,
    *JOB_INVARIANTS,
    *WORKFLOW_INVARIANTS,
)


def run_doctor(
    database: Database | str,
    *,
    schema: str | None = None,
    names: Sequence[str] | None = None,
    checks: Sequence[Check] = CHECKS,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> DoctorReport:
    """Every check, or those of these names, in order; each ends within ``timeout_seconds``. Nothing is written.

    The whole takes at most the number of checks times the timeout. Raises InvalidRequest for a name that is none, and
    DatabaseUnavailable when no connection is to be had.
    """
    unknown = set(names or ()) - {one.name for one in checks}
    if unknown:
        hint = "checks: " + ", ".join(sorted(one.name for one in checks))
        raise InvalidRequest(f"there is no check {sorted(unknown)[0]!r}", hint=hint)
    target = Database(database, schema=schema, pool_size=1) if isinstance(database, str) else database
    try:
        with target.autocommit():
            pass  # a database that is away is said once, not by every check
        wanted = [one for one in checks if names is None or one.name in names]
        return DoctorReport(tuple(_run(target, one, timeout_seconds) for one in wanted))
    finally:
        if isinstance(database, str):
            target.close()


def _run(database: Database, check: Check, timeout_seconds: float) -> CheckResult:
    try:
        with database.begin() as ledger:
            only_read(ledger, within_seconds=timeout_seconds)
            findings = check.find(ledger)
    except RunledgerError as error:
        return _unchecked(check, error, timeout_seconds)
    except psycopg.Error as error:
        return _unchecked(check, error_for(error), timeout_seconds)
    status = CheckStatus.PASSED
    if findings:
        status = CheckStatus.ADVICE if check.is_advice else CheckStatus.FOUND
    return CheckResult(check.name, check.what, status, tuple(findings), check.fix)


def _unchecked(check: Check, error: RunledgerError, timeout_seconds: float) -> CheckResult:
    said = error.internal_message or str(error)
    if "57014" in said or "statement timeout" in said or "55P03" in said:
        why = f"not finished within {timeout_seconds:g} s; give it more time: --timeout, --only {check.name}"
        return CheckResult(check.name, check.what, CheckStatus.TIMED_OUT, (why,), check.fix)
    return CheckResult(check.name, check.what, CheckStatus.FAILED, (f"could not be checked: {said}",), check.fix)
