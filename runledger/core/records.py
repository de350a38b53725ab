"""Shapes of records: dataclasses and TypedDicts, field by field. Unknown fields are refused, never dropped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from runledger.core.errors import InvalidPayload
from runledger.core.gate import path_step
from runledger.core.jobs import JsonValue
from runledger.core.shapes import Shape, object_of, refuse


class RecordField(NamedTuple):
    """The type of one field, and whether it must be there."""

    shape: Shape
    is_required: bool


@dataclass(slots=True)
class RecordShape:
    """A dataclass or a TypedDict. ``fields`` is filled after it was made, so that a record may hold its own kind."""

    name: str
    kind: type
    is_dict: bool
    fields: Mapping[str, RecordField] = field(default_factory=dict)

    def read(self, value: JsonValue, path: str) -> Any:
        members = self._checked(value, path)
        values = {key: self.fields[key].shape.read(item, f"{path}.{key}") for key, item in members.items()}
        return values if self.is_dict else self._made(values, path)

    def write(self, value: Any, path: str) -> JsonValue:
        if not self.is_dict and isinstance(value, self.kind):
            return {key: known.shape.write(getattr(value, key), f"{path}.{key}") for key, known in self.fields.items()}
        members = self._checked(value, path)
        return {key: self.fields[key].shape.write(item, f"{path}.{key}") for key, item in members.items()}

    def _checked(self, value: Any, path: str) -> dict[str, Any]:
        members = object_of(value, path)
        for key in members:
            if key not in self.fields:
                refuse(path + path_step(key), f"is not a field of {self.name}")
        for key, known in self.fields.items():
            if known.is_required and key not in members:
                refuse(f"{path}.{key}", "is missing")
        return members

    def _made(self, values: dict[str, Any], path: str) -> Any:
        try:
            return self.kind(**values)
        except InvalidPayload:
            raise
        except Exception as error:  # __post_init__ is the user's; its text may repeat the value, its class does not
            raise InvalidPayload(f"{path} is refused by {self.name}: {type(error).__name__}") from None
