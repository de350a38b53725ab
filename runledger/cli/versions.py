"""``runledger version``: what runs here, for a report of a fault."""

import platform
from importlib import metadata

import click

from runledger.cli.options import LedgerCommand, Session
from runledger.cli.output import print_fields, print_json
from runledger.version import package_version

LIBRARIES = ("psycopg", "SQLAlchemy", "croniter", "click")


@click.command(cls=LedgerCommand)
@click.pass_obj
def version(session: Session) -> None:
    """Print the versions in use.

    Of Runledger, of Python and of the libraries that it stands on.
    """
    versions = {"runledger": package_version(), "python": platform.python_version()}
    versions |= {name.lower(): metadata.version(name) for name in LIBRARIES}
    if session.is_json:
        print_json(versions)
    else:
        print_fields(list(versions.items()))
