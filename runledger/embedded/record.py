"""What we know about the running server beyond its own pid file; written whole, believed only for its own pid."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of the server: ``keep_running`` means that it outlives its users until somebody stops it."""

    pid: int
    socket_directory: str
    keep_running: bool
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_disposable(self) -> bool:
        """Whether the run was started without fsync, so that an orderly shutdown would be wasted time."""
        return self.settings.get("fsync") == "off"


def read_record(path: Path) -> RunRecord | None:
    """The stored record; None when there is none or it does not read."""
    try:
        return RunRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_record(path: Path, record: RunRecord) -> None:
    """The file holds exactly this record; a reader sees the old one or the new one."""
    draft = path.with_suffix(".new")
    fields = {
        "pid": record.pid,
        "socket_directory": record.socket_directory,
        "keep_running": record.keep_running,
        "settings": dict(record.settings),
    }
    draft.write_text(json.dumps(fields))
    os.replace(draft, path)
