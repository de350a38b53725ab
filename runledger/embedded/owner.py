"""Which user runs the server: PostgreSQL refuses root, so root hands its programs to ``nobody``.

No user is created and no permission of anything that existed is widened.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from runledger.embedded.errors import EmbeddedUnavailable

NOBODY = "nobody"
NOBODY_ID = 65534


@dataclass(frozen=True, slots=True)
class ServerOwner:
    """The user of the server's processes and files; ``is_switched`` when it differs from ours."""

    uid: int
    gid: int
    is_switched: bool


def server_owner() -> ServerOwner:
    """Ourselves, or ``nobody`` when we are root."""
    if os.geteuid() != 0:
        return ServerOwner(os.geteuid(), os.getegid(), is_switched=False)
    try:
        entry = pwd.getpwnam(NOBODY)
    except KeyError:
        return ServerOwner(NOBODY_ID, NOBODY_ID, is_switched=True)
    return ServerOwner(entry.pw_uid, entry.pw_gid, is_switched=True)


def is_traversable_by(path: Path, owner: ServerOwner) -> bool:
    """Whether every existing directory above the path lets this user through, by its mode bits."""
    above = {*path.absolute().parents, *path.resolve().parents}
    return all(permits(directory, owner, 0o1) for directory in above if directory.exists())


def permits(path: Path, owner: ServerOwner, bits: int) -> bool:
    """Whether the mode of the path grants this user all of the bits (4 read, 2 write, 1 enter or run)."""
    found = path.stat()
    if found.st_uid == owner.uid:
        return found.st_mode >> 6 & bits == bits
    if found.st_gid == owner.gid:
        return found.st_mode >> 3 & bits == bits
    return found.st_mode & bits == bits


def make_own_directory(path: Path, *, mode: int) -> None:
    """The directory exists and belongs to us with nobody else able to write to it; missing parents are made 0755.

    Raises EmbeddedUnavailable when it is a link, another user's, or writable by others.
    """
    for parent in reversed(path.parents):
        _make_directory(parent, mode=0o755)
    _make_directory(path, mode=mode)
    found = path.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    if not is_ours:
        raise EmbeddedUnavailable(
            f"{path} is not a private directory of this user", hint="remove it, or set RUNLEDGER_HOME to another place"
        )


def _make_directory(path: Path, *, mode: int) -> None:
    if path.is_dir():
        return
    try:
        path.mkdir(mode=mode)  # at once: another process looks at this very moment whether the server can enter
    except FileExistsError:
        return
    except OSError as error:
        raise EmbeddedUnavailable(f"{path} cannot be created: {error.strerror}") from error
    path.chmod(mode)
