"""``runledger health``: whether jobs would run, as one exit code."""

import http.client

import click

from runledger.cli.exits import Complaint, ExitCode, complain
from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import one_line, print_json
from runledger.cli.schema import check_schema_or_exit
from runledger.database.ledger import Ledger
from runledger.postgres.workers import list_workers

TIMEOUT_SECONDS = 10.0
LONGEST_ANSWER_BYTES = 1_000
PAGE = 1_000


@click.command(cls=LedgerCommand)
@click.option("--health-addr", "address", metavar="HOST:PORT", help="Ask the host that was started with this address.")
@click.pass_obj
def health(session: Session, *, address: str | None) -> None:
    """Say whether jobs would run.

    With --health-addr it asks one host whether it is ready, and needs no database. Without, it asks the database
    whether the schema fits and a live worker is registered. The exit code is 0 for yes, 3 for no, and 69 when nobody
    answers.

    \b
    Examples:
      runledger health
      runledger health --health-addr 127.0.0.1:8080
    """
    if address is not None:
        is_healthy, said = _ask_host(session, address)
    else:
        with session.reading(timeout_seconds=TIMEOUT_SECONDS) as ledger:
            check_schema_or_exit(session, ledger)
            is_healthy = _has_live_worker(ledger)
        said = "the schema fits and a worker is live" if is_healthy else "no worker is live"
    if session.is_json:
        print_json({"is_healthy": is_healthy, "detail": said})
    else:
        click.echo(said)
    if not is_healthy:
        raise click.exceptions.Exit(ExitCode.CHECK_SAID_NO)


def _ask_host(session: Session, address: str) -> tuple[bool, str]:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) < 65_536):
        raise click.BadParameter("it must look like 127.0.0.1:8080", param_hint="--health-addr")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        said = one_line(answer.read(LONGEST_ANSWER_BYTES).decode(errors="replace"))
    except (OSError, http.client.HTTPException) as error:
        complain(Complaint("cli.host_unavailable", f"nobody answers at {address}: {error}"), is_json=session.is_json)
        raise click.exceptions.Exit(ExitCode.UNAVAILABLE) from error
    finally:
        connection.close()
    return answer.status == http.client.OK, said


def _has_live_worker(ledger: Ledger) -> bool:
    """Lost workers stay on the list for a day, so a page of them alone says nothing."""
    after = None
    with ledger.database.autocommit() as connection:
        while page := list_workers(connection, after=after, limit=PAGE):
            if any(worker.is_live for worker in page):
                return True
            after = page[-1].worker_id
    return False
