"""One structured line for each thing a person would ask about: text for a terminal, JSON for machines.

Payloads, DSNs and SQL never stand in a line. Every value is cleaned, so a job's text cannot forge a second line. A
traceback is the one text of several lines; for a terminal they follow the line, indented.
"""

import json
import logging
import sys
import time
from typing import Any

from runledger.core.gate import TRACEBACK_LIMIT, clean_text

VALUE_LIMIT = 2_048
TRACEBACK = "traceback"
_INDENT = "    "
_logger = logging.getLogger("runledger")


def configure_logs(level: str, log_format: str) -> None:
    """The lines of this process go to stderr. ``auto`` means text on a terminal and JSON elsewhere."""
    is_json = log_format == "json" or (log_format == "auto" and not sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if is_json else _TextLines())
    _logger.handlers[:] = [handler]
    _logger.setLevel(level.upper())
    _logger.propagate = False


def log(level: int, event: str, **fields: Any) -> None:
    """``event`` is a dotted word that stays the same; fields say which, how many, why."""
    if _logger.isEnabledFor(level):
        _logger.log(level, event, extra={"fields": {name: _clean(name, value) for name, value in fields.items()}})


def _clean(name: str, value: Any) -> Any:
    if name == TRACEBACK and value is not None:
        return clean_text(value, TRACEBACK_LIMIT, keep_end=True)
    if value is None or isinstance(value, bool | int | float):
        return value
    return clean_text(value, VALUE_LIMIT).replace("\r", "\\r").replace("\n", "\\n")


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = dict(getattr(record, "fields", {}))
        traceback = fields.pop(TRACEBACK, None) or ""
        said = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()} {said}".rstrip()
        return "\n".join([line, *(f"{_INDENT}{one}" for one in traceback.splitlines())])


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "pid": record.process,
        } | {name: value for name, value in getattr(record, "fields", {}).items() if name != TRACEBACK or value}
        return json.dumps(line, ensure_ascii=False, default=str)
