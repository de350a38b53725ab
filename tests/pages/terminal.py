"""A shell on a terminal of its own, in which the console blocks of a page are typed."""

import contextlib
import os
import pty
import re
import secrets
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

SETTINGS = "stty -echo cols 120; PS1=''; PS2=''; unset PROMPT_COMMAND\n"
READ_BYTES = 65_536
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """One bash, from the first command of a page to its end; jobs in the background are its process group's."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self._controller, terminal = pty.openpty()
        attributes = termios.tcgetattr(terminal)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        self._shell = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "+m"],
            cwd=place,
            env=environment | {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "120"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        self._run_raw(SETTINGS, patience_seconds=10)

    def run(self, command: str, *, patience_seconds: float) -> tuple[int, str]:
        """Exit status and output of a command. Raises AssertionError when the time runs out."""
        return self._run_raw(f"{command}\n", patience_seconds=patience_seconds)

    def close(self) -> None:
        """The shell and all that it started in the background end: asked first, killed after ten seconds."""
        children = _children_of(self._shell.pid)
        for pid in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        while any(_is_alive(pid) for pid in children) and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait(10)
        os.close(self._controller)

    def _run_raw(self, text: str, *, patience_seconds: float) -> tuple[int, str]:
        mark = f"mark-{secrets.token_hex(8)}"
        os.write(self._controller, f"{text}printf '\\n%s %s\\n' {mark} $?\n".encode())
        end = re.compile(rf"\n{mark} (\d+)\n")
        seen = ""
        deadline = time.monotonic() + patience_seconds
        while (found := end.search(seen)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"no end after {patience_seconds} s: {text}{seen}"
            if select.select([self._controller], [], [], left)[0]:
                seen = CONTROL.sub("", seen + os.read(self._controller, READ_BYTES).decode(errors="replace"))
        return int(found[1]), seen[: found.start()].strip("\n")


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
