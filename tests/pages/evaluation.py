"""What each kind of block of a page means when the page is run as a test.

A Python block that begins with a comment naming a file is written to that file, as a reader would; others run in one
namespace for each page. A console block types what stands behind ``$``; the lines below a command are what it shows,
where ``…`` stands for anything. A command that fails fails the page, unless the block shows ``$ echo $?`` next. SQL is
sent to the database of the page. A block of ``sh`` is not run here; the mark above it says why, or which test types it.
"""

import os
import re
import sys
from pathlib import Path

import psycopg
from sybil import Example

FILE_NAME = re.compile(r"# ([\w/]+\.(?:py|json|toml))\n")
PATIENCE_SECONDS = 90
SHOW_STATUS = "echo $?"


def python_block(example: Example) -> None:
    """The block is written to its file, or run."""
    text = example.parsed
    named = FILE_NAME.match(text)
    if named:
        path = example.namespace["place"] / named[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    else:
        code = compile("\n" * (example.line + example.parsed.line_offset) + text, example.path, "exec")
        exec(code, example.namespace)


def console_block(example: Example) -> None:
    """The commands are typed and must show what the page says."""
    steps = _steps(example.parsed)
    status = 0
    for number, (command, shown) in enumerate(steps):
        if command == SHOW_STATUS:
            assert shown == str(status), f"the command before ended with {status}"
            continue
        status, output = example.namespace["terminal"].run(command, patience_seconds=PATIENCE_SECONDS)
        is_status_shown = steps[number + 1 : number + 2] and steps[number + 1][0] == SHOW_STATUS
        assert status == 0 or is_status_shown, f"{command} ended with {status}:\n{output}"
        assert not shown or _matches(shown, output), f"{command} shows\n{output}\nand not\n{shown}"


def sql_block(example: Example) -> None:
    """The statements are understood by the database of the page."""
    with psycopg.connect(example.namespace["url"]) as connection:
        connection.execute(example.parsed)


def _steps(text: str) -> list[tuple[str, str]]:
    """Each command with the lines that it shows."""
    steps: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), ""))
        elif steps and steps[-1][0].endswith("\\"):
            steps[-1] = (f"{steps[-1][0]}\n{line}", "")
        elif steps:
            steps[-1] = (steps[-1][0], f"{steps[-1][1]}{line}\n")
    return [(command, shown.strip("\n")) for command, shown in steps]


def _matches(shown: str, output: str) -> bool:
    """Whether the output is as shown; runs of blanks count as one, and trailing ones for nothing."""
    pattern = r"\s*".join(
        r"[ \t]+".join(".*?".join(re.escape(part) for part in word.split("…")) for word in line.split())
        for line in shown.splitlines()
        if line.strip()
    )
    return re.fullmatch(rf"\s*{pattern}\s*", output, re.DOTALL) is not None


def environment_of_a_reader(url: str) -> dict[str, str]:
    """A clean environment in which the program is on the path and the database is named."""
    names = ("RUNLEDGER_", "JOBS_", "PG", "DATABASE_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    program_folder = str(Path(sys.executable).parent)
    return kept | {"PATH": f"{program_folder}{os.pathsep}{kept['PATH']}", "RUNLEDGER_DATABASE_URL": url}
