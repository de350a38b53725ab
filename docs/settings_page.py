"""The page of settings: every environment variable that anything of ours reads."""

from dataclasses import fields

import click

from runledger.cli import main, options
from runledger.cli.worker import worker
from runledger.embedded import binaries, places
from runledger.runtime.config import JobsConfig
from runledger.testing import server_choice

HEAD = """# Settings

<!-- {note} -->

A blank variable means the default; a value that does not parse or lies outside its limits ends with 78.

"""

OF_PROCESSES = ("Variable, and option of `worker`", "", "Default", "Limits")

OF_EVERY_COMMAND = """
## Of every command

The option wins over the variable, and the first variable over the second.

"""

OTHERS = {
    places.HOME_VARIABLE: "The folder of the embedded server, instead of `./.runledger`.",
    binaries.BINARIES_VARIABLE: "The `bin` folder of the embedded server's PostgreSQL; an unusable one is an error.",
    server_choice.URL_VARIABLE: "The server of the pytest fixtures: PostgreSQL 14 or later, and a role with CREATEDB.",
    server_choice.CHOICE_VARIABLE: "`url`, `embedded` or `docker`: the only kind of server that the fixtures try.",
    server_choice.IMAGE_VARIABLE: f"The image that `docker` runs, by default `{server_choice.DEFAULT_IMAGE}`.",
    main.COMPLETION_VARIABLE: "Set by the completion script of a shell; nothing for people.",
    "PGHOST": "And `PGPORT`, `PGUSER` and the others of libpq: what the URL of the database leaves open.",
    "NO_COLOR": "Not blank: no colors.",
    "FORCE_COLOR": "Not blank, and `NO_COLOR` blank: colors also where the output is no terminal.",
    "NOTIFY_SOCKET": "Set by systemd: the host says there when it is ready and when it stops.",
    "WATCHDOG_USEC": "Set by systemd: the host gives a sign of life at half of it.",
}

DEFAULTS_OF_THE_MACHINE = {"worker_id": "a random name", "max_global_concurrency": "the number of processors"}


def settings_page(note: str) -> str:
    """The variables of the processes with option, default and limits; then those of every command, and all others."""
    return (
        HEAD.format(note=note)
        + _table(OF_PROCESSES, _of_processes())
        + OF_EVERY_COMMAND
        + _table(("Variable", "", "Option"), _of_every_command())
        + "\n## Of the embedded server, tests and terminals\n\n"
        + _table(("Variable", ""), [(f"`{name}`", meaning) for name, meaning in OTHERS.items()])
    )


def _of_processes() -> list[tuple[str, ...]]:
    spelled = {one.name: _as_code(one.opts) for one in worker.params if isinstance(one, click.Option)}
    rows = []
    for one in fields(JobsConfig):
        minimum, maximum = one.metadata["minimum"], one.metadata["maximum"]
        limits = "" if minimum is None else f"from {minimum:,}" if maximum is None else f"{minimum:,} to {maximum:,}"
        default = DEFAULTS_OF_THE_MACHINE.get(one.name) or f"{one.default:,}"
        names = f"`{one.metadata['variable']}`" + (f"<br>{spelled[one.name]}" if one.name in spelled else "")
        rows.append((names, one.metadata["help"], default, limits))
    return rows


def _of_every_command() -> list[tuple[str, ...]]:
    return [
        (_as_code([one.envvar] if isinstance(one.envvar, str) else one.envvar), one.help or "", _as_code(one.opts))
        for one in options.SHARED_OPTIONS
        if one.envvar
    ]


def _as_code(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))
