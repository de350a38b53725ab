"""What a command prints: a table on a terminal, tab-separated lines in a pipe, or one JSON document.

Data goes to standard output and nothing else does. Characters that steer a terminal never get through: what is printed
was written by handlers and other people.
"""

import dataclasses
import json
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, NamedTuple, TypeVar

import click

Item = TypeVar("Item")

_STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_COLORS = {
    "SUCCEEDED": "green",
    "LEASED": "cyan",
    "PENDING": "blue",
    "DEAD_LETTERED": "red",
    "CANCELED": "yellow",
}
GAP = "  "
SHORTEST_LAST_COLUMN = 20


class Column(NamedTuple, Generic[Item]):
    """A heading and what stands below it for each item."""

    heading: str
    read: Callable[[Item], object]


def printable(text: str) -> str:
    """The text on one line, with control characters and lone surrogates written as escapes."""
    return _STEERING.sub(_escape, text)


def one_line(text: str) -> str:
    """The text with its lines joined by blanks, for a message that must stay one line."""
    return printable(" ".join(text.split()))


def _escape(match: re.Match[str]) -> str:
    character = match.group()
    return _SHORT_ESCAPES.get(character) or f"\\x{ord(character):02x}"


def text_of(value: object) -> str:
    """How a value stands in a table: nothing for None, times as RFC 3339 in UTC to the second, JSON compact."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, Mapping | list | tuple):
        return json_text(value)
    return printable(str(value))


def json_text(value: object) -> str:
    """Compact JSON on one line, for a cell."""
    return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain))


def print_rows(items: Sequence[Item], columns: Sequence[Column[Item]], *, is_whole: bool = False) -> None:
    """A table with headings on a terminal; tab-separated lines without headings in a pipe. A last column with more
    than fits is cut on a terminal, unless ``is_whole``: then it goes on in the next line."""
    rows = [[text_of(column.read(item)) for column in columns] for item in items]
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    headings = [column.heading for column in columns]
    widths = [max(map(len, cells)) for cells in zip(headings, *rows, strict=True)]
    if not is_whole:
        widths[-1] = _room_for_last(widths)
    click.echo(click.style(_line(headings, widths), bold=True))
    for row in rows:
        click.echo(_colored(_line(row, widths), row))


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Name and value of each field that has one, a line each."""
    shown = [(name, text) for name, value in fields if (text := text_of(value))]
    width = max((len(name) for name, _ in shown), default=0)
    is_terminal = sys.stdout.isatty()
    for name, text in shown:
        label = click.style(name.ljust(width), bold=True) + GAP if is_terminal else f"{name}\t"
        color = _COLORS.get(text) if is_terminal else None
        click.echo(label + (click.style(text, fg=color) if color else text))


def print_text(heading: str, text: str) -> None:
    """A text of many lines below its heading, each line moved in and free of what steers a terminal."""
    click.echo(click.style(printable(heading), bold=True))
    for line in text.splitlines():
        click.echo(f"{GAP}{printable(line)}".rstrip())


def print_json(document: Any) -> None:
    """One JSON document: times as RFC 3339 in UTC, ids as text, fields in the order of their value."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    indent = 2 if sys.stdout.isatty() else None
    text = json.dumps(document, default=_plain, ensure_ascii=not is_unicode, indent=indent)
    click.echo(re.sub(r"[\x7f-\x9f]", lambda match: f"\\u{ord(match.group()):04x}", text))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _room_for_last(widths: Sequence[int]) -> int:
    """The last column ends at the edge of the terminal, because it is the one that holds prose."""
    left_of_it = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    room = shutil.get_terminal_size().columns - left_of_it
    return min(widths[-1], max(room, SHORTEST_LAST_COLUMN))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    last = cells[-1] if len(cells[-1]) <= widths[-1] else cells[-1][: widths[-1] - 1] + "…"
    return GAP.join([*(cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=False)), last]).rstrip()


def _colored(line: str, cells: Sequence[str]) -> str:
    status = next((cell for cell in cells if cell in _COLORS), None)
    return line if status is None else line.replace(status, click.style(status, fg=_COLORS[status]), 1)
