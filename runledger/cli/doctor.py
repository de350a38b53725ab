"""``runledger doctor``: the check-up of database, schema, processes and stored state."""

import click

from runledger.cli.exits import ExitCode
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import print_json, printable
from runledger.cli.values import DURATION
from runledger.core.checkups import CheckResult, CheckStatus
from runledger.database.doctor import CHECKS, TIMEOUT_SECONDS, run_doctor

_COLORS = {
    CheckStatus.PASSED: "green",
    CheckStatus.FOUND: "red",
    CheckStatus.ADVICE: "yellow",
    CheckStatus.TIMED_OUT: "magenta",
    CheckStatus.FAILED: "magenta",
}


@click.command(cls=LedgerCommand)
@click.option("--only", "names", multiple=True, metavar="CHECK", help="Only this check; may be given again.")
@click.option("--timeout", type=DURATION, default=TIMEOUT_SECONDS, show_default="5s", help="Most time for each check.")
@click.pass_obj
def doctor(session: Session, *, names: tuple[str, ...], timeout: float) -> None:
    """Check database, schema, processes and stored state.

    Reads only. The exit code is 3 when a check found something, or could not be made; advice alone ends with 0. Each
    finding says what helps.

    \b
    Examples:
      runledger doctor
      runledger doctor --only lapsed-leases --only oldest-snapshot
      runledger doctor --json
    """
    with session.reading() as ledger:
        report = run_doctor(ledger.database, names=names or None, timeout_seconds=timeout)
    if session.is_json:
        print_json({"is_healthy": report.is_healthy, "results": report.results})
    else:
        for result in report.results:
            _print_result(session, result)
        found = sum(result.status is not CheckStatus.PASSED for result in report.results)
        session.say(f"{len(report.results)} of {len(CHECKS)} checks made, {found} with something to say")
    if not report.is_healthy:
        raise click.exceptions.Exit(ExitCode.CHECK_SAID_NO)


def _print_result(session: Session, result: CheckResult) -> None:
    if result.status is CheckStatus.PASSED and session.is_quiet:
        return
    status = click.style(result.status.ljust(9), fg=_COLORS[result.status])
    click.echo(f"{status}  {result.name.ljust(27)}  {result.what}")
    for finding in result.findings:
        click.echo(f"{' ' * 11}- {printable(finding)}")
    if result.findings:
        click.echo(f"{' ' * 11}fix: {result.fix}")
