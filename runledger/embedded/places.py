"""Where the embedded server keeps its files, and how to make directories without widening anybody else's.

Nothing that we did not create is ever chmod-ed or chown-ed; a directory we find must already be ours.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runledger.embedded.owner import ServerOwner, is_traversable_by, make_own_directory

HOME_VARIABLE = "RUNLEDGER_HOME"
LOCATION_FILE = "location"


@dataclass(frozen=True, slots=True)
class Place:
    """One home on disk: the data directory of the server, and our own files beside it."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def log(self) -> Path:
        return self.root / "server.log"

    @property
    def record(self) -> Path:
        return self.root / "server.json"

    @property
    def users_lock(self) -> Path:
        return self.root / "users.lock"

    @property
    def change_lock(self) -> Path:
        return self.root / "change.lock"


def embedded_home(name: str = "pg18", environment: Mapping[str, str] = os.environ) -> Path:
    """``$RUNLEDGER_HOME/NAME``, else ``./.runledger/NAME``, else the user's cache where the directory is read-only."""
    if chosen := environment.get(HOME_VARIABLE):
        return Path(chosen).expanduser().absolute() / name
    local = Path.cwd() / ".runledger"
    is_writable = os.access(local if local.exists() else local.parent, os.W_OK | os.X_OK)
    return (local if is_writable else cache_directory(environment)) / name


def cache_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """Where copies and redirected homes go: ``/var/cache/runledger`` for root, the XDG cache for everybody else.

    The directory is not created. Where neither can be written it lies below the temporary directory.
    """
    if os.geteuid() == 0:
        parent = Path("/var/cache")
    else:
        parent = Path(environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")).absolute()
    name = "runledger"
    existing = next(ancestor for ancestor in (parent, *parent.parents) if ancestor.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        parent, name = Path(tempfile.gettempdir()), f"runledger-{os.geteuid()}"
    return parent / name


def locate_place(home: Path, owner: ServerOwner, cache: Path) -> Place:
    """The place of this home: the home itself, or one below the cache when the server's user cannot enter the home.

    The other place follows from the path of the home alone and is recorded in the home, so that it is found again.
    Reads only.
    """
    recorded = _recorded_location(home)
    if recorded is not None:
        return Place(recorded)
    if not owner.is_switched or is_traversable_by(home / "data", owner):
        return Place(home)
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Place(cache / "homes" / digest)


def make_place(home: Path, place: Place, owner: ServerOwner) -> None:
    """The place exists, is ours alone, is ignored by git, and is recorded in the home when it lies elsewhere."""
    mode = 0o711 if owner.is_switched else 0o700
    for directory in {home, place.root}:
        make_own_directory(directory, mode=mode)
        (directory / ".gitignore").write_text("*\n")
    if place.root != home:
        (home / LOCATION_FILE).write_bytes(os.fsencode(place.root))


def _recorded_location(home: Path) -> Path | None:
    """The recorded place, believed only while it exists and belongs to us."""
    try:
        recorded = Path(os.fsdecode((home / LOCATION_FILE).read_bytes()))
        return recorded if recorded.is_absolute() and recorded.lstat().st_uid == os.geteuid() else None
    except OSError:
        return None
