"""Shapes of models of other libraries: pydantic and msgspec, each only where the program has imported it already.

Their messages may repeat the value, so an error keeps the place and the kind of flaw alone.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from runledger.core.errors import InvalidPayload
from runledger.core.gate import encode_json, path_step
from runledger.core.jobs import JsonValue
from runledger.core.shapes import Shape

_SAFE_MESSAGES: Final = ("Expected `", "Object missing required field `", "Object contains unknown field `")
_MSGSPEC_PLACE: Final = re.compile(r" - at `\$([^`]*)`$")


def model_shape(kind: type) -> Shape | None:
    """The shape of a pydantic model or a msgspec Struct; None for any other class, and for models of pydantic 1."""
    if _is_subclass(kind, "pydantic.main", "BaseModel") and hasattr(kind, "model_validate_json"):
        return PydanticShape(kind.__name__, kind)
    if _is_subclass(kind, "msgspec", "Struct"):
        return MsgspecShape(kind.__name__, kind, sys.modules["msgspec"])
    return None


def _is_subclass(kind: type, module_name: str, class_name: str) -> bool:
    parent = getattr(sys.modules.get(module_name), class_name, None)
    return isinstance(parent, type) and issubclass(kind, parent)


@dataclass(frozen=True, slots=True)
class PydanticShape:
    """A pydantic model, read as JSON: so a strict model takes text for a UUID or a date."""

    name: str
    kind: Any

    def read(self, value: JsonValue, path: str) -> Any:
        text = encode_json(value, error=InvalidPayload, field=path)
        try:
            return self.kind.model_validate_json(text)
        except Exception as error:  # validators are the user's and may raise anything
            refuse_quietly(path, self.name, _pydantic_flaw(error))

    def write(self, value: Any, path: str) -> JsonValue:
        if not isinstance(value, self.kind):
            self.read(value, path)
            return value
        try:
            return value.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
        except Exception as error:  # serializers are the user's
            refuse_quietly(path, self.name, ("", type(error).__name__))


@dataclass(frozen=True, slots=True)
class MsgspecShape:
    """A msgspec Struct."""

    name: str
    kind: Any
    msgspec: Any

    def read(self, value: JsonValue, path: str) -> Any:
        try:
            return self.msgspec.convert(value, self.kind, str_keys=True)
        except Exception as error:  # decoding hooks are the user's
            refuse_quietly(path, self.name, _msgspec_flaw(error))

    def write(self, value: Any, path: str) -> JsonValue:
        if not isinstance(value, self.kind):
            self.read(value, path)
            return value
        try:
            return self.msgspec.to_builtins(value, str_keys=True)
        except Exception as error:  # a field may hold anything
            refuse_quietly(path, self.name, ("", type(error).__name__))


def refuse_quietly(path: str, name: str, flaw: tuple[str, str]) -> Any:
    """Raises InvalidPayload with the place and kind of the flaw, and without the error that holds the value."""
    place, kind = flaw
    raise InvalidPayload(f"{path}{place} does not fit {name}: {kind}") from None


def _pydantic_flaw(error: Exception) -> tuple[str, str]:
    errors = getattr(error, "errors", None)
    if not callable(errors):
        return "", type(error).__name__
    first = errors(include_url=False, include_context=False, include_input=False)[0]
    return _place(first["loc"]), str(first["type"])


def _place(steps: Iterable[int | str]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else path_step(step) for step in steps)


def _msgspec_flaw(error: Exception) -> tuple[str, str]:
    message = str(error)
    place = _MSGSPEC_PLACE.search(message)
    flaw = message[: place.start()] if place else message
    kind = flaw if flaw.startswith(_SAFE_MESSAGES) and flaw.isprintable() else type(error).__name__
    return (place.group(1) if place else ""), kind
