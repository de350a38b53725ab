"""Copy the PostgreSQL programs when the server's user cannot reach them, as in an environment below ``/root``."""

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from runledger.embedded.binaries import Binaries
from runledger.embedded.errors import EmbeddedUnavailable
from runledger.embedded.owner import ServerOwner, is_traversable_by, make_own_directory, permits


def reachable_binaries(binaries: Binaries, owner: ServerOwner, cache: Path) -> Binaries:
    """The same programs where the server's user can run them; copied once below ``cache`` when it cannot.

    A copy keeps the layout around it, because the programs find their libraries relative to themselves.
    Raises EmbeddedUnavailable when they are out of reach and are not an installation that can be moved.
    """
    if not owner.is_switched or _is_reachable(binaries, owner):
        return binaries
    if not list(binaries.prefix.glob("share/**/postgres.bki")):
        raise EmbeddedUnavailable(f"the server's user cannot run the programs in {binaries.directory}")
    package = binaries.prefix.parent.name
    target = cache / "binaries" / _fingerprint(binaries)
    make_own_directory(target.parent, mode=0o755)
    if not target.exists():
        _copy_installation(binaries, target, package)
    if target.lstat().st_uid != os.geteuid():
        raise EmbeddedUnavailable(f"{target} belongs to another user")
    prefix = target / package / binaries.prefix.name
    return Binaries(prefix / binaries.directory.name, binaries.version, library_directory=prefix / "lib")


def _is_reachable(binaries: Binaries, owner: ServerOwner) -> bool:
    programs = [Path(binaries.program(name)) for name in ("postgres", "initdb")]
    return all(is_traversable_by(program, owner) and permits(program, owner, 0o5) for program in programs)


def _fingerprint(binaries: Binaries) -> str:
    server = Path(binaries.program("postgres")).stat()
    identity = f"{binaries.prefix}|{binaries.version}|{server.st_mtime_ns}|{server.st_size}"
    return hashlib.sha256(os.fsencode(identity)).hexdigest()[:16]


def _copy_installation(binaries: Binaries, target: Path, package: str) -> None:
    """The target holds a complete copy, readable by all; it appears in one step, whoever else copies meanwhile."""
    workplace = Path(tempfile.mkdtemp(prefix=".copy-", dir=target.parent))
    try:
        prefix = workplace / package / binaries.prefix.name
        for part in {binaries.directory.name, "lib", "share"}:
            if (binaries.prefix / part).is_dir():
                shutil.copytree(binaries.prefix / part, prefix / part, ignore=shutil.ignore_patterns("*.a", "pgxs"))
        libraries = binaries.prefix.parent.with_name(f"{package}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, workplace / libraries.name)
        _let_everybody_read(workplace)
        if not target.exists():
            workplace.rename(target)
    except FileExistsError:
        pass
    except OSError as error:
        if not target.exists():
            raise EmbeddedUnavailable(f"the PostgreSQL programs cannot be copied to {target}: {error}") from error
    finally:
        shutil.rmtree(workplace, ignore_errors=True)


def _let_everybody_read(tree: Path) -> None:
    for directory, _, files in os.walk(tree):
        os.chmod(directory, 0o755)  # noqa: S103 - our own copy, and another user has to run it
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
