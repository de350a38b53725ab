"""Environment variables for the length of a block, because configuration is read from there."""

import contextlib
import os
from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def scoped_environment(**values: str | None) -> Iterator[None]:
    """The variables have these values inside the block (None: unset) and their old ones afterwards, errors included."""
    before = {name: os.environ.get(name) for name in values}
    try:
        _apply(values)
        yield
    finally:
        _apply(before)


def _apply(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
