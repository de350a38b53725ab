"""Typed payloads: what a handler's annotation promises is checked at enqueue and again before each run.

So a payload that does not fit never becomes a job, and one that fitted an older release fails alone.
"""

import dataclasses
import inspect
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, get_type_hints

from runledger.core.annotations import PLAIN, resolved, shape_of
from runledger.core.errors import InvalidHandler, InvalidPayload
from runledger.core.jobs import JsonValue
from runledger.core.models import model_shape
from runledger.core.shapes import Shape

ORIGIN_KEY: Final = "_schedule"
"""Where the payload of a fired job says which schedule fired it, and for which slot."""

_PLAIN_ANNOTATIONS: Final = (inspect.Parameter.empty, Any, None, type(None), dict, object)
_PLAIN_KINDS: Final = frozenset({dict, list, tuple, str, int, float, bool})


@dataclasses.dataclass(frozen=True, slots=True)
class PayloadType:
    """What a handler takes as payload; plain JSON passes as it is."""

    shape: Shape = PLAIN

    @property
    def is_plain(self) -> bool:
        """Whether any JSON will do."""
        return self.shape is PLAIN

    def to_json(self, value: Any) -> JsonValue:
        """The JSON of an instance or of a plain dict, which can be read back. Raises InvalidPayload with the path."""
        if self.shape is PLAIN:
            return value
        try:
            written = self.shape.write(value, "payload")
            self.shape.read(written, "payload")
        except RecursionError:
            raise InvalidPayload("payload is nested too deeply") from None
        return written

    def from_json(self, value: JsonValue) -> Any:
        """The instance that the handler gets; without what a scheduler added, unless its type has room for that.
        Raises InvalidPayload with the path."""
        if self.shape is PLAIN:
            return value
        if isinstance(value, dict) and ORIGIN_KEY in value:
            try:
                return self._read(value)
            except InvalidPayload:
                value = {key: item for key, item in value.items() if key != ORIGIN_KEY}
        return self._read(value)

    def _read(self, value: JsonValue) -> Any:
        try:
            return self.shape.read(value, "payload")
        except RecursionError:
            raise InvalidPayload("payload is nested too deeply") from None


PLAIN_PAYLOAD: Final = PayloadType()


def payload_type_of(handler: Callable[..., Any]) -> PayloadType:
    """The payload type that the handler's second parameter is annotated with; plain without an annotation.

    Raises InvalidHandler when the annotation cannot be resolved or checked.
    """
    parameters = list(_signature(handler).parameters.values())
    annotation = parameters[1].annotation if len(parameters) > 1 else inspect.Parameter.empty
    if annotation in _PLAIN_ANNOTATIONS:
        return PLAIN_PAYLOAD
    shape = shape_of(_resolved_annotation(handler, annotation))
    return PLAIN_PAYLOAD if shape is PLAIN else PayloadType(shape)


def plain_payload(value: Any) -> JsonValue:
    """The JSON of a dataclass instance, pydantic model or msgspec Struct; anything else unchanged, for the gate to
    judge. Raises InvalidPayload when an instance does not fit its own annotations."""
    kind: Any = type(value)
    if kind in _PLAIN_KINDS:
        return value
    payload_type = _payload_type_of_class(kind)
    return value if payload_type is None else payload_type.to_json(value)


@lru_cache(maxsize=256)
def _payload_type_of_class(kind: type) -> PayloadType | None:
    if model_shape(kind) is None and not dataclasses.is_dataclass(kind):
        return None
    try:
        return PayloadType(shape_of(kind))
    except InvalidHandler as error:
        raise InvalidPayload(f"payload is a {kind.__name__}, and {error}") from error


def _signature(handler: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(handler)
    except (TypeError, ValueError, NameError) as error:
        raise InvalidHandler(f"the parameters of the handler cannot be read: {error}") from error


def _resolved_annotation(handler: Callable[..., Any], annotation: Any) -> Any:
    """With its forward references. Only this one is resolved: the others may name what only type checkers import."""
    function = inspect.unwrap(handler)
    function = getattr(function, "__func__", getattr(function, "func", function))
    names = getattr(function, "__globals__", None) or getattr(type(handler).__call__, "__globals__", {})
    holder = types.SimpleNamespace(__annotations__={"payload": annotation}, __qualname__=repr(handler))
    return resolved(lambda owner: get_type_hints(owner, globalns=names), holder)["payload"]
