"""Places and processes for the tests of the embedded server; whatever a test starts has ended when it ends."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runledger.embedded import TEST_SETTINGS, EmbeddedServer, find_binaries
from runledger.embedded.owner import server_owner
from runledger.embedded.places import cache_directory
from runledger.embedded.relocation import reachable_binaries

REPOSITORY = Path(__file__).parents[2]
IS_ROOT = os.geteuid() == 0

# imports everything first, because a plain user may not be able to read the environment of root
PROLOGUE = """
import os, pwd, sys
from pathlib import Path
import psycopg
from runledger.embedded import EmbeddedServer, TEST_SETTINGS, running_server
home = Path(sys.argv[1])
if os.environ.get("RUN_AS_NOBODY"):
    nobody = pwd.getpwnam("nobody")
    os.setgroups([]), os.setgid(nobody.pw_gid), os.setuid(nobody.pw_uid)
"""

SHARE = """
with running_server(home, TEST_SETTINGS) as server:
    print(server.status().pid, flush=True)
    sys.stdin.readline()
"""

Program = subprocess.Popen[str]
StartProgram = Callable[..., Program]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that every user may enter; pytest's own lies below a private one."""
    made = Path(tempfile.mkdtemp(prefix="rl-tests-")).resolve()
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def new_home(directory: Path) -> Iterator[Path]:
    """A home that does not exist yet; its server is stopped and destroyed afterwards."""
    place = directory / "home"
    yield place
    EmbeddedServer(place).destroy()


@pytest.fixture(scope="session")
def initialised_home() -> Iterator[Path]:
    """One home with a data directory, because initdb takes longer than most tests; its name is the default's."""
    made = Path(tempfile.mkdtemp(prefix="rl-tests-")).resolve()
    made.chmod(0o755)
    server = EmbeddedServer(made / "pg18", TEST_SETTINGS)
    server.start()
    server.stop()
    yield server.home
    server.destroy()
    shutil.rmtree(made)


@pytest.fixture
def home(initialised_home: Path) -> Iterator[Path]:
    """A home whose server ran before and is stopped; it is stopped again afterwards."""
    yield initialised_home
    EmbeddedServer(initialised_home).stop()


@pytest.fixture
def start_program() -> Iterator[StartProgram]:
    """Runs ``PROLOGUE`` and a script in a new Python process; ends what still runs afterwards."""
    started: list[Program] = []

    def start(script: str, home: Path, **environment: str | None) -> Program:
        merged = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
        program = subprocess.Popen(
            [sys.executable, "-c", PROLOGUE + script, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in merged.items() if value is not None},
        )
        started.append(program)
        return program

    yield start
    for program in started:
        if program.poll() is None:
            program.kill()
        program.communicate()


@pytest.fixture
def reachable_bin() -> str:
    """The directory of the programs where any user can run them."""
    return str(reachable_binaries(find_binaries(), server_owner(), cache_directory()).directory)


def first_line(program: Program) -> str:
    """The first line that the program prints; its complaint when it prints none."""
    assert program.stdout is not None
    line = program.stdout.readline().strip()
    assert line, program.communicate()[1]
    return line


def finish(program: Program) -> str:
    """The program was told to go on, ended well, and printed this."""
    output, errors = program.communicate("\n", timeout=60)
    assert program.returncode == 0, errors
    return output.strip()
