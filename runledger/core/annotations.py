"""From an annotation to its shape, once, when a handler is registered. What cannot be checked is refused there,
because an annotation that is not enforced would lie."""

import dataclasses
import types
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, NoReturn, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from runledger.core.errors import InvalidHandler
from runledger.core.models import model_shape
from runledger.core.records import RecordField, RecordShape
from runledger.core.shapes import (
    ChoiceShape,
    FloatShape,
    ListShape,
    MapShape,
    ParsedShape,
    PlainShape,
    ScalarShape,
    Shape,
    TupleShape,
    UnionShape,
)

PLAIN: Final = PlainShape()


def _finite_decimal(text: str) -> Decimal:
    number = Decimal(text)
    if not number.is_finite():
        raise ValueError("not finite")
    return number


_LEAVES: Final[Mapping[object, Shape]] = {
    Any: PLAIN,
    object: PLAIN,
    str: ScalarShape("str", str),
    int: ScalarShape("int", int),
    bool: ScalarShape("bool", bool),
    type(None): ScalarShape("null", type(None)),
    None: ScalarShape("null", type(None)),
    float: FloatShape(),
    UUID: ParsedShape("UUID", UUID, UUID, str),
    datetime: ParsedShape("datetime", datetime, datetime.fromisoformat, datetime.isoformat),
    date: ParsedShape("date", date, date.fromisoformat, date.isoformat),
    Decimal: ParsedShape("Decimal", Decimal, _finite_decimal, str, kinds=(str, int, float)),
}
_ARRAYS: Final = (list, Sequence, MutableSequence)
_OBJECTS: Final = (dict, Mapping, MutableMapping)


def shape_of(annotation: Any, records: dict[type, RecordShape] | None = None) -> Shape:
    """The shape of an annotation. ``records`` holds the records met so far, so that they may refer to each other.

    Raises InvalidHandler when the annotation, or one inside it, cannot be checked or resolved.
    """
    known = {} if records is None else records
    annotation = _unwrapped(annotation)
    if isinstance(annotation, type | types.NoneType) or annotation is Any:
        return _shape_of_class(annotation, known)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Union or origin is types.UnionType:
        members = tuple(shape_of(argument, known) for argument in arguments)
        return UnionShape(" or ".join(member.name for member in members), members)
    if origin is Literal:
        return ChoiceShape("the literal", {(type(value), value): value for value in _scalars(arguments, annotation)})
    return _shape_of_generic(annotation, origin, arguments, known)


def _unwrapped(annotation: Any) -> Any:
    """Without Annotated, NewType and type aliases."""
    for _ in range(16):
        if get_origin(annotation) is Annotated:
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        else:
            break
    return annotation


def _shape_of_class(kind: Any, records: dict[type, RecordShape]) -> Shape:
    if kind in _LEAVES:
        return _LEAVES[kind]
    if kind in _ARRAYS:
        return ListShape("list", PLAIN, list)
    if kind is tuple:
        return ListShape("tuple", PLAIN, tuple)
    if kind in _OBJECTS:
        return MapShape("dict", PLAIN)
    if issubclass(kind, Enum):
        values = _scalars([member.value for member in kind], kind)
        return ChoiceShape(kind.__name__, {(type(value), value): kind(value) for value in values})
    return model_shape(kind) or _record_shape(kind, records)


def _shape_of_generic(
    annotation: Any, origin: Any, arguments: tuple[Any, ...], records: dict[type, RecordShape]
) -> Shape:
    if origin is not None and not hasattr(annotation, "__args__"):  # typing.List without a parameter
        return _shape_of_class(origin, records)
    if origin in _ARRAYS:
        item = shape_of(arguments[0], records)
        return ListShape(f"list of {item.name}", item, list)
    if origin is tuple and len(arguments) == 2 and arguments[1] is ...:
        return ListShape("tuple", shape_of(arguments[0], records), tuple)
    if origin is tuple:
        return TupleShape("tuple", tuple(shape_of(argument, records) for argument in arguments))
    if origin not in _OBJECTS or _unwrapped(arguments[0]) not in (str, Any):
        _refuse(annotation)
    return MapShape("dict", shape_of(arguments[1], records))


def _record_shape(kind: type, records: dict[type, RecordShape]) -> RecordShape:
    if kind in records:
        return records[kind]
    is_dict = issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    if not is_dict and not dataclasses.is_dataclass(kind):
        _refuse(kind)
    shape = records[kind] = RecordShape(kind.__name__, kind, is_dict)
    hints = resolved(get_type_hints, kind)
    shape.fields = {
        name: RecordField(shape_of(hints[name], records), is_required) for name, is_required in _fields(kind, is_dict)
    }
    return shape


def _fields(kind: Any, is_dict: bool) -> list[tuple[str, bool]]:
    if is_dict:
        return [(name, name in kind.__required_keys__) for name in kind.__annotations__]
    missing = dataclasses.MISSING
    return [
        (known.name, known.default is missing and known.default_factory is missing)
        for known in dataclasses.fields(kind)
        if known.init
    ]


def resolved(get_hints: Callable[[Any], dict[str, Any]], owner: Any) -> dict[str, Any]:
    """The annotations with their forward references. Raises InvalidHandler when a name does not exist there."""
    try:
        return get_hints(owner)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        name = getattr(owner, "__qualname__", "the handler")
        raise InvalidHandler(f"an annotation of {name} cannot be resolved: {error}") from error


def _scalars(values: Any, annotation: Any) -> list[Any]:
    if not all(value is None or type(value) in (str, int, float, bool) for value in values):
        _refuse(annotation)
    return list(values)


def _refuse(annotation: Any) -> NoReturn:
    raise InvalidHandler(f"the annotation {annotation!r} is not a type that payloads are checked against")
