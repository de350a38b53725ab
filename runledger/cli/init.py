"""``runledger init``: an application to begin with, in one file."""

from pathlib import Path

import click

from runledger.cli.exits import Complaint, ExitCode, complain

STARTER = Path(__file__).parents[1] / "demo" / "starter.py"
NAME = "jobs.py"
NEXT = """next, in {place}:
  export RUNLEDGER_DATABASE_URL=$(runledger db start)    # or the URL of a database that you have
  runledger migrate
  runledger worker --app jobs:catalog                    # leave it running; in another terminal:
  runledger enqueue greet '{{"name": "Ada"}}' --app jobs:catalog --wait
  python jobs.py                                         # a workflow of three steps"""


@click.command("init")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), default=Path())
def init(directory: Path) -> None:
    """Write an application to begin with.

    One file, jobs.py, in DIRECTORY (default: this one), which is made when it is missing: two handlers with typed
    payloads and a workflow of three steps. Nothing is ever overwritten.

    \b
    Examples:
      runledger init
      runledger init shop
    """
    target = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(STARTER.read_text(encoding="utf-8"))
    except FileExistsError as error:
        complain(Complaint("cli.file_exists", f"{target} is there already", "choose another directory"), is_json=False)
        raise click.exceptions.Exit(ExitCode.REFUSED) from error
    except OSError as error:
        complain(Complaint("cli.not_writable", f"cannot write {target}: {error.strerror}", None), is_json=False)
        raise click.exceptions.Exit(ExitCode.REFUSED) from error
    click.echo(target)
    click.echo(NEXT.format(place=directory.resolve()), err=True)
