"""Array parameters as PostgreSQL array literals: plain text that every driver sends as it is.

A driver looks at every element of a list to find its type and its quotes, which costs more for each job than all else
that a worker does; joining text that needs no quotes costs almost nothing.
"""

from collections.abc import Iterable, Sequence


def plain_array(values: Iterable[object]) -> str:
    """Ids, numbers, truth values and words of ours, none of which needs quotes; None is NULL."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def text_array(values: Sequence[str | None]) -> str:
    """Any text; None is NULL."""
    if not any(values) and all(value is None for value in values):
        return "{" + ",".join(["NULL"] * len(values)) + "}"
    return "{" + ",".join(["NULL" if value is None else _quoted(value) for value in values]) + "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
