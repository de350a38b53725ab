"""Payloads with places for outputs of other steps: readable JSON for people, text with holes for the database.

When the step is released, the database fills each hole with the JSON text of its output and reads the whole as one
payload, so nothing has to walk a value in SQL.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from runledger.core.errors import InvalidPayload
from runledger.core.gate import JSON_LIMIT, MAX_DEPTH, encode_json
from runledger.core.jobs import JsonValue
from runledger.core.payloads import plain_payload
from runledger.core.workflows import OutputOf

READABLE_KEY = "$output_of"


@dataclass(frozen=True, slots=True)
class Template:
    """``payload`` is JSON text that shows each hole as ``{"$output_of": [step, path…]}``; ``parts`` is the JSON text of
    an array of texts and holes in turn, None without holes; ``references`` are the holes in order."""

    payload: str
    parts: str | None
    references: tuple[OutputOf, ...]


def encode_template(payload: JsonValue) -> Template:
    """The payload of a step, through the data gate. None stands for ``{}``. Raises InvalidPayload."""
    value = payload if isinstance(payload, OutputOf) else {} if payload is None else plain_payload(payload)
    holes: list[OutputOf] = []
    readable = _Walk(lambda hole: _noted(hole, holes)).map(value)
    text = encode_json(readable, error=InvalidPayload)
    return Template(text, _parts(value, holes) if holes else None, tuple(holes))


def has_holes(payload: JsonValue) -> bool:
    """Whether ``output_of`` stands anywhere in it, so that its final value is not known yet."""
    holes: list[OutputOf] = []
    _Walk(lambda hole: _noted(hole, holes)).map(payload)
    return bool(holes)


def _noted(hole: OutputOf, holes: list[OutputOf]) -> JsonValue:
    holes.append(hole)
    return {READABLE_KEY: [hole.step_key, *hole.path]}


def _parts(value: JsonValue, holes: list[OutputOf]) -> str:
    """The text is cut at a mark that nobody can have written, because it was drawn just now."""
    mark = f"hole-{secrets.token_hex(16)}"
    texts = encode_json(_Walk(lambda _: mark).map(value), error=InvalidPayload, limit_bytes=2 * JSON_LIMIT)
    parts: list[JsonValue] = []
    for position, text in enumerate(texts.split(f'"{mark}"')):
        if position:
            hole = holes[position - 1]
            parts.append({"step": hole.step_key, "path": [str(part) for part in hole.path]})
        if text:
            parts.append(text)
    return json.dumps(parts, ensure_ascii=False)


class _Walk:
    """One pass over a value that replaces its holes. Bounded like the gate, which judges everything else: below its
    depth nothing is touched, and a value that never ends is refused."""

    def __init__(self, replace: Callable[[OutputOf], JsonValue]) -> None:
        self._replace = replace
        self._left = JSON_LIMIT

    def map(self, value: JsonValue, depth: int = 0) -> JsonValue:
        self._left -= 1
        if self._left < 0:
            raise InvalidPayload(f"payload is larger than {JSON_LIMIT:,} bytes")
        if isinstance(value, OutputOf):
            return self._replace(value)
        if depth > MAX_DEPTH or not isinstance(value, dict | list | tuple):
            return value
        if isinstance(value, dict):
            return {key: self.map(item, depth + 1) for key, item in value.items()}
        return [self.map(item, depth + 1) for item in value]
