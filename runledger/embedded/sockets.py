"""Where a server listens: a private directory that stays the same for one place, so that a URL that somebody exported
is still true after a restart.

It lies beside the data, where nobody else may write; when that path is too long for a socket, below our cache, by a
name made from the path. Only where neither can be used it is a new directory with a name that nobody can guess: a name
that others know may be taken by others, so it is never used in a directory where they may write.
"""

import contextlib
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runledger.embedded.errors import EmbeddedUnavailable
from runledger.embedded.owner import ServerOwner, is_traversable_by, make_own_directory
from runledger.embedded.places import Place, cache_directory

SOCKET_PREFIX = "runledger-"
LONGEST_SOCKET_DIRECTORY = 85  # sun_path holds 104 to 108 bytes; "/.s.PGSQL.5432.lock" takes 19
_SOCKET = ".s.PGSQL.5432"


def make_socket_directory(place: Place, owner: ServerOwner) -> Path:
    """An empty private directory for the server of this place, which does not run. Raises EmbeddedUnavailable."""
    for directory in _lasting(place, owner):
        if _is_usable(directory.parent, len(directory.name), owner) and _is_made_anew(directory, owner):
            return directory
    for parent in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - mkdtemp makes the name unguessable
        if _is_usable(parent, len(SOCKET_PREFIX) + 8, owner):
            directory = Path(tempfile.mkdtemp(prefix=SOCKET_PREFIX, dir=parent))
            _hand_over(directory, owner)
            return directory
    raise EmbeddedUnavailable("no temporary directory is short enough for a socket", hint="set TMPDIR to a short path")


def remove_socket_directory(path: str, owner: ServerOwner) -> None:
    """The socket directory of a stopped server is gone, if it is one that we made."""
    with contextlib.suppress(OSError):
        if os.path.basename(path).startswith(SOCKET_PREFIX) and os.lstat(path).st_uid in (owner.uid, os.geteuid()):
            shutil.rmtree(path)


def _lasting(place: Place, owner: ServerOwner) -> Iterator[Path]:
    """The directories that only this place uses, the best first; what is above them is ours alone."""
    yield place.root / f"{SOCKET_PREFIX}socket"
    cache = cache_directory()
    with contextlib.suppress(EmbeddedUnavailable):
        for directory in (cache, cache / "sockets"):
            make_own_directory(directory, mode=0o711 if owner.is_switched else 0o700)
        yield cache / "sockets" / f"{SOCKET_PREFIX}{hashlib.sha256(os.fsencode(place.root)).hexdigest()[:16]}"


def _is_usable(parent: Path, name_length: int, owner: ServerOwner) -> bool:
    is_short = len(os.fsencode(parent)) + 1 + name_length <= LONGEST_SOCKET_DIRECTORY
    is_plain = not set(str(parent)) & set(',"\\ ')
    return is_short and is_plain and (not owner.is_switched or is_traversable_by(parent / "x", owner))


def _is_made_anew(directory: Path, owner: ServerOwner) -> bool:
    """Whether the directory is there, empty and the server's own. False where somebody else listens in it, where it
    belongs to somebody else, and where the file system takes no sockets."""
    if _is_listening(directory / _SOCKET):
        return False
    remove_socket_directory(str(directory), owner)
    try:
        directory.mkdir(mode=0o700)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.bind(str(directory / _SOCKET))
        (directory / _SOCKET).unlink()
        _hand_over(directory, owner)
    except OSError:
        return False
    return True


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        return client.connect_ex(str(path)) == 0


def _hand_over(directory: Path, owner: ServerOwner) -> None:
    if owner.is_switched:
        os.chown(directory, owner.uid, owner.gid)
