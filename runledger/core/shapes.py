"""Shapes: how a value of one annotated type is read from JSON and written to it. This module holds scalars and
containers; records and models stand beside it.

``write`` also takes what is JSON already, so that a caller may hand in a plain dict. A refusal names path and type.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn, Protocol

from runledger.core.errors import InvalidPayload
from runledger.core.gate import path_step
from runledger.core.jobs import JsonValue


class Shape(Protocol):
    """Both directions raise InvalidPayload, with the path and without the value."""

    @property
    def name(self) -> str:
        """What a person calls the type."""
        ...

    def read(self, value: JsonValue, path: str) -> Any:
        """The Python value of a JSON value."""
        ...

    def write(self, value: Any, path: str) -> JsonValue:
        """The JSON value of a Python value, or of one that is JSON already."""
        ...


def refuse(path: str, reason: str) -> NoReturn:
    """Raises InvalidPayload."""
    raise InvalidPayload(f"{path} {reason}") from None


@dataclass(frozen=True, slots=True)
class PlainShape:
    """Any JSON, as it is."""

    name: str = "JSON"

    def read(self, value: JsonValue, path: str) -> Any:
        return value

    def write(self, value: Any, path: str) -> JsonValue:
        return value


@dataclass(frozen=True, slots=True)
class ScalarShape:
    """str, int, bool or None; a bool is not an int."""

    name: str
    kind: type

    def read(self, value: JsonValue, path: str) -> Any:
        if not isinstance(value, self.kind) or (self.kind is int and isinstance(value, bool)):
            refuse(path, f"must be {self.name}")
        return value

    write = read


@dataclass(frozen=True, slots=True)
class FloatShape:
    """A float; an integer becomes one."""

    name: str = "float"

    def read(self, value: JsonValue, path: str) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            refuse(path, "must be float")
        try:
            return float(value)
        except OverflowError:
            refuse(path, "is too large for float")

    write = read


@dataclass(frozen=True, slots=True)
class ParsedShape:
    """A type that stands in JSON as text, such as UUID. ``kinds`` are the JSON types it is read from."""

    name: str
    kind: type
    parse: Callable[[str], Any]
    format: Callable[[Any], str]
    kinds: tuple[type, ...] = (str,)

    def read(self, value: JsonValue, path: str) -> Any:
        if not isinstance(value, self.kinds) or isinstance(value, bool):
            refuse(path, f"must be {self.name} as text")
        try:
            return self.parse(str(value))
        except (ValueError, ArithmeticError):
            refuse(path, f"is not a valid {self.name}")

    def write(self, value: Any, path: str) -> JsonValue:
        if type(value) is self.kind:
            return self.format(value)
        self.read(value, path)
        return value


@dataclass(frozen=True, slots=True)
class ChoiceShape:
    """One of a few scalars: a Literal, or the values of an Enum. 1 is neither True nor 1.0 here."""

    name: str
    choices: Mapping[tuple[type, object], Any]

    def read(self, value: JsonValue, path: str) -> Any:
        key = (type(value), value if isinstance(value, str | int | float) else None)
        if not isinstance(value, str | int | float | None) or key not in self.choices:
            refuse(path, f"is not one of the {len(self.choices)} values of {self.name}")
        return self.choices[key]

    def write(self, value: Any, path: str) -> JsonValue:
        plain = value.value if isinstance(value, Enum) else value
        if self.read(plain, path) is not value and isinstance(value, Enum):
            refuse(path, f"is not a member of {self.name}")
        return plain


@dataclass(frozen=True, slots=True)
class ListShape:
    """An array of any length; ``make`` builds the Python container."""

    name: str
    item: Shape
    make: Callable[[list[Any]], Any]

    def read(self, value: JsonValue, path: str) -> Any:
        items = _array(value, path)
        return self.make([self.item.read(item, f"{path}[{index}]") for index, item in enumerate(items)])

    def write(self, value: Any, path: str) -> JsonValue:
        return [self.item.write(item, f"{path}[{index}]") for index, item in enumerate(_array(value, path))]


@dataclass(frozen=True, slots=True)
class TupleShape:
    """An array of a fixed length, each place with its own type."""

    name: str
    items: tuple[Shape, ...]

    def read(self, value: JsonValue, path: str) -> Any:
        array = self._sized(value, path)
        return tuple(shape.read(array[index], f"{path}[{index}]") for index, shape in enumerate(self.items))

    def write(self, value: Any, path: str) -> JsonValue:
        array = self._sized(value, path)
        return [shape.write(array[index], f"{path}[{index}]") for index, shape in enumerate(self.items)]

    def _sized(self, value: Any, path: str) -> "list[Any] | tuple[Any, ...]":
        array = _array(value, path)
        if len(array) != len(self.items):
            refuse(path, f"must have {len(self.items)} items")
        return array


@dataclass(frozen=True, slots=True)
class MapShape:
    """An object with any keys, and one type for all its values."""

    name: str
    item: Shape

    def read(self, value: JsonValue, path: str) -> Any:
        return {key: self.item.read(item, path + path_step(key)) for key, item in object_of(value, path).items()}

    def write(self, value: Any, path: str) -> JsonValue:
        return {key: self.item.write(item, path + path_step(key)) for key, item in object_of(value, path).items()}


@dataclass(frozen=True, slots=True)
class UnionShape:
    """The first member, as declared, that takes the value. Where only one member looked inside, its refusal is told."""

    name: str
    members: tuple[Shape, ...]

    def read(self, value: JsonValue, path: str) -> Any:
        return self._first([member.read for member in self.members], value, path)

    def write(self, value: Any, path: str) -> JsonValue:
        return self._first([member.write for member in self.members], value, path)

    def _first(self, conversions: Sequence[Callable[[Any, str], Any]], value: Any, path: str) -> Any:
        inner = []
        for convert in conversions:
            try:
                return convert(value, path)
            except InvalidPayload as refusal:
                if not str(refusal).startswith(f"{path} "):
                    inner.append(refusal)
        if len(inner) == 1:
            raise inner[0] from None
        refuse(path, f"must be {self.name}")


def object_of(value: Any, path: str) -> dict[str, Any]:
    """The value as an object with text keys. Raises InvalidPayload otherwise."""
    if not isinstance(value, dict):
        refuse(path, "must be an object")
    if not all(isinstance(key, str) for key in value):
        refuse(path, "has a key that is not text")
    return value


def _array(value: Any, path: str) -> list[Any] | tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        refuse(path, "must be an array")
    return value
