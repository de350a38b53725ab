"""What the demonstration is going to do: which files, which of them stumble, and what must come out.

Everything expected is computed here, in one process and without a queue, before the first job is enqueued.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from runledger import JobRequest
from runledger.demo.extraction import FileFacts, extract
from runledger.demo.jobs import FileToDigest, catalog, digest, slow

MOST_FILES = 2_000
MOST_ENTRIES_SEEN = 50_000
LARGEST_FILE_BYTES = 262_144
STUMBLING_SHARE = 8
MISSING_PATH = "this file does not exist.txt"
GIT_PATIENCE_SECONDS = 10
_PASSED_OVER = frozenset({"__pycache__", "node_modules", "build", "dist", "target", "venv"})


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file, relative to the root, and what is in it."""

    path: str
    facts: FileFacts
    stumbles: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of one directory, by path."""

    root: Path
    files: tuple[PlannedFile, ...]

    def requests(self) -> list[JobRequest]:
        """One job for each file; in the middle of them the long one, and one for a file that is not there."""
        requests = [self._request(file.path, stumbles=file.stumbles) for file in self.files]
        middle = len(requests) // 2
        return [*requests[:middle], catalog.request(slow), self._request(MISSING_PATH), *requests[middle:]]

    def _request(self, path: str, *, stumbles: bool = False) -> JobRequest:
        return catalog.request(digest, FileToDigest(str(self.root), path, stumbles))


def make_plan(directory: Path) -> Plan:
    """The text files of the directory, at most 2,000 of at most 256 KiB, tracked by git or else all but hidden and
    built ones. Every eighth stumbles, at least one, chosen by digest."""
    root = directory.resolve()
    readable = (file for path in islice(_paths(root), MOST_ENTRIES_SEEN) if (file := _planned(root, path)))
    files = list(islice(readable, MOST_FILES))
    by_digest = sorted(files, key=lambda file: (file.facts.sha256, file.path))
    stumbling = {file.path for file in by_digest[::STUMBLING_SHARE]}
    return Plan(root, tuple(replace(file, stumbles=file.path in stumbling) for file in files))


def _planned(root: Path, path: str) -> PlannedFile | None:
    """None for what is no text file of a fitting size, or has a name that is no text."""
    place = root / path
    try:
        path.encode()
        if place.is_symlink() or not place.is_file() or place.stat().st_size > LARGEST_FILE_BYTES:
            return None
        content = place.read_bytes()
    except (OSError, UnicodeEncodeError):
        return None
    if b"\0" in content or path == MISSING_PATH:
        return None
    return PlannedFile(path, extract(content, place.suffix))


def _paths(root: Path) -> Iterator[str]:
    tracked = _tracked(root)
    yield from sorted(tracked) if tracked else _walked(root)


def _tracked(root: Path) -> list[str]:
    """What git tracks below the root; nothing without git or outside of a work tree."""
    try:
        answer = subprocess.run(
            ["git", "ls-files", "-z", "--cached"],
            cwd=root,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=GIT_PATIENCE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [os.fsdecode(path) for path in answer.stdout.split(b"\0") if path] if answer.returncode == 0 else []


def _walked(root: Path) -> Iterator[str]:
    for directory, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith(".") and name not in _PASSED_OVER)
        for name in sorted(files):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(directory, name), root)
