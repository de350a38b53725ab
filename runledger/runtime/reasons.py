"""Why children of a supervisor cannot do their work with the set-up as it is: each writes a line, the supervisor reads.

A pipe takes a short line whole, so two children that write at once do not mix.
"""

import contextlib
import os
from collections.abc import Callable

from runledger.core.errors import ConfigurationError
from runledger.core.gate import clean_text

REASON_BYTES = 2_048
"""Less than a pipe takes whole."""


class Reasons:
    """Made by the supervisor before the first fork; ``tell`` is for the children, ``take`` for the supervisor."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def tell(self, error: ConfigurationError) -> None:
        """The supervisor can say what is wrong. Lost when nobody has read for a long time."""
        hint = "" if error.hint is None else f" (hint: {error.hint})"
        text = clean_text(f"{error.code}: {error}{hint}", REASON_BYTES).replace("\r", " ").replace("\n", " ")
        with contextlib.suppress(OSError):
            os.write(self._write, text.encode()[:REASON_BYTES] + b"\n")

    def take(self) -> str | None:
        """The last reason that was told since the last look; None when there is none."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read, 65_536):
                data += part
        lines = data.decode(errors="replace").splitlines()
        return lines[-1] if lines else None

    def telling(self, run: Callable[[int], int]) -> Callable[[int], int]:
        """``run`` for a child that tells what is wrong with the set-up before it ends for it."""

        def run_and_tell(parent_pid: int) -> int:
            try:
                return run(parent_pid)
            except ConfigurationError as error:
                self.tell(error)
                raise

        return run_and_tell
