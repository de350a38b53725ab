"""The page of the process tree: what a supervisor starts when it is asked to start what is missing.

Nothing is forked for it: each birth is only noted, so the page says what the fleet does, whatever anybody remembers.
"""

import importlib
import inspect
import signal
from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple, get_args
from unittest import mock

from runledger.runtime import alone, fleet, roles
from runledger.runtime.children import Child
from runledger.runtime.config import JobsConfig
from runledger.runtime.host import Pipe, Shared
from runledger.runtime.supervisor import Supervisor

HEAD = """# Processes

<!-- {note} -->

One `runledger worker` is a *host*: a supervisor and its children. While the host runs, whichever of them ends is
started again. An arrow is a fork; a dashed line is a connection, and beside it stands its `application_name`.

"""

TABLE = """
| Process | How many | What it does | When the supervisor dies, the kernel sends it |
| --- | --- | --- | --- |
"""

SHARED = """
## What they share

Memory that is made before the first fork, so that every child has it:

"""


class Birth(NamedTuple):
    """One child, as the supervisor would start it."""

    role: str
    death_signal: signal.Signals


def process_tree_page(note: str) -> str:
    """The tree as a diagram, each process with its purpose, and what the processes share."""
    born = births()
    rows = [f"| supervisor | 1 | {_purpose('supervisor')} | |"]
    rows += [f"| {role} | {_count(role)} | {_purpose(role)} | {born[role].death_signal.name} |" for role in born]
    kinds = [(get_args(one.type) or [one.type])[-1] for one in fields(Shared)]
    shared = [f"- {_first_paragraph(kind.__module__)}" for kind in kinds if kind is not Pipe]
    alone_too = f"\n## Without a supervisor\n\n{_first_paragraph(alone.__name__)}\n"
    return "".join([HEAD.format(note=note), _diagram(born), TABLE, _lines(rows), SHARED, _lines(shared), alone_too])


def births() -> dict[str, Birth]:
    """By role, in the order of their start: the children of a supervisor with everything switched on."""
    noted: list[Birth] = []

    def note(
        role: str,
        _run: Callable[[int], int],
        *,
        slot_index: int | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> Child:
        noted.append(Birth(role, death_signal))
        return Child(role, -len(noted), 0.0, slot_index)

    supervisor = Supervisor(
        app="myapp.jobs:catalog",
        database_url="postgresql:///app",
        config=JobsConfig(max_global_concurrency=2),
        health_address="127.0.0.1:8080",
    )
    host = supervisor._host
    try:
        with mock.patch.object(fleet, "spawn", note):
            supervisor._fleet.start_what_is_missing()
    finally:
        host.shared.close()
    return {one.role: one for one in noted}


def _diagram(born: dict[str, Birth]) -> str:
    lines = ["```mermaid", "flowchart TB", '    supervisor["supervisor"]', '    database[("PostgreSQL")]']
    for role in born:
        name = f"{role} × N" if role == fleet.WORKER else role
        lines.append(f'    supervisor --> {role}["{name}"]')
    lines += [f"    {role} -.-|{name}| database" for role in born if (name := _connection_name(role))]
    return "\n".join([*lines, "```\n"])


def _count(role: str) -> str:
    return "`JOBS_MAX_GLOBAL_CONCURRENCY`" if role == fleet.WORKER else "1"


def _purpose(role: str) -> str:
    """What the module of the process says of it."""
    text = _first_paragraph(f"{roles.__package__}.{role}").removeprefix(f"The {role}: ")
    return text[0].upper() + text[1:]


def _connection_name(role: str) -> str | None:
    """As it stands in ``pg_stat_activity``; None for a role that opens no connection."""
    if "_link(host, " not in inspect.getsource(vars(roles)[f"live_as_{role}"]):
        return None
    return f"runledger:{role}" + ("-0…" if role == fleet.WORKER else "")


def _first_paragraph(module: str) -> str:
    text = inspect.getdoc(importlib.import_module(module)) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`")


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
