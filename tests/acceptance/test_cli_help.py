"""The help of every command, compared with its snapshot. RUNLEDGER_UPDATE_SNAPSHOTS=1 writes the snapshots anew."""

import os
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from runledger.cli.main import ENTRIES, root

SNAPSHOTS = Path(__file__).parent / "help"
IS_UPDATE = bool(os.environ.get("RUNLEDGER_UPDATE_SNAPSHOTS"))
WIDTH = 100


def every_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from every_command(found, (*path, name))


COMMANDS = list(every_command(root))


def help_of(path: tuple[str, ...]) -> str:
    result = CliRunner().invoke(root, [*path, "--help"], prog_name="runledger", terminal_width=WIDTH)
    assert result.exit_code == 0
    return result.stdout


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path) or "runledger")
def test_the_help_is_the_one_that_was_reviewed(path: tuple[str, ...]) -> None:
    snapshot = SNAPSHOTS / f"{'_'.join(('runledger', *path))}.txt"
    if IS_UPDATE:
        snapshot.write_text(help_of(path))
    assert snapshot.exists(), f"no snapshot {snapshot.name}; RUNLEDGER_UPDATE_SNAPSHOTS=1 writes it"
    assert help_of(path) == snapshot.read_text()


def test_every_snapshot_belongs_to_a_command() -> None:
    known = {"_".join(("runledger", *path)) for path in COMMANDS}
    assert {file.stem for file in SNAPSHOTS.glob("*.txt")} <= known


@pytest.mark.parametrize("name", root.list_commands(click.Context(root)))
def test_the_purpose_in_the_list_is_the_first_line_of_the_help(name: str) -> None:
    command = root.get_command(click.Context(root), name)
    assert command is not None
    assert command.help is not None
    purpose = next(entry.purpose for entry in ENTRIES if entry.name == name)
    assert command.help.strip().splitlines()[0] == purpose
