"""The data gate: one door for JSON, one for text, one for identifiers.

What passes can be stored by PostgreSQL and read back as the same plain value; what does not pass is refused before
any SQL with a stable code. An error names the place (``payload.items[3]``) and never the value.
"""

import json
import unicodedata
from collections.abc import Callable
from typing import Any, NoReturn

from runledger.core.errors import InvalidIdentifier, ValidationError
from runledger.core.jobs import JsonValue

JSON_LIMIT = 262_144
DECODE_LIMIT = 64 * JSON_LIMIT
"""Larger than what goes in: ``jsonb`` writes ``1e300`` as 301 digits, and a blank after each comma."""

MAX_DEPTH = 64
MAX_DIGITS = 1_000
IDENTIFIER_LIMIT = 200
KEY_LIMIT = 512
TAG_LIMIT = 64
MESSAGE_LIMIT = 2_048
REASON_LIMIT = 2_048
TRACEBACK_LIMIT = 16_384

_HUGE = 10**MAX_DIGITS
_WORD = 2**63
_WEIGHTLESS = frozenset({bool, type(None)})
_ELLIPSIS = "…".encode()
_PRINTED_BLANKS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0\ufe0e\ufe0f")
"""Characters that Python calls printable and that show nothing."""


class _Refused(Exception):
    """Why a value does not pass; the path grows from the inside out while the walk unwinds."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path: list[str] = []


class _TooLarge(Exception):
    """The JSON text would be larger than allowed; noticed before it is made."""


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("NaN and infinities are not JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _compact_encoder() -> Callable[[object], str]:
    """``_ENCODER.encode``, which makes its encoder in C anew for each value; that takes half of its time."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # a Python without it
        return _ENCODER.encode
    encode = make(None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", False, False, False)
    return lambda value: "".join(encode(value, 0))


_compact = _compact_encoder()


def encode_json(
    value: JsonValue, *, error: type[ValidationError], limit_bytes: int = JSON_LIMIT, field: str = "payload"
) -> str:
    """Compact JSON text that ``jsonb`` accepts. Subclasses of str, int and float become their plain value, tuples
    become arrays. At most 64 levels, 1,000 digits and ``limit_bytes`` of UTF-8.

    Raises ``error``, and nothing else, when the value is anything but such JSON.
    """
    _admit(value, error=error, limit_bytes=limit_bytes, field=field)
    try:
        text = _compact(value)
    except (ValueError, TypeError, RuntimeError):  # another thread changed it after the check
        raise error(f"{field} cannot be stored as JSON") from None
    if (len(text) if text.isascii() else len(text.encode("utf-8", "replace"))) > limit_bytes:
        raise error(f"{field} is larger than {limit_bytes:,} bytes")
    return text


def decode_json(
    text: str, *, error: type[ValidationError], limit_bytes: int = DECODE_LIMIT, field: str = "payload"
) -> JsonValue:
    """The value of stored JSON text, within the same limits of depth, digits and characters.

    Raises ``error``, and nothing else, when somebody stored past the gate what it would have refused.
    """
    if not isinstance(text, str) or len(text) > limit_bytes:
        raise error(f"{field} is not JSON text of at most {limit_bytes:,} bytes")
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError):
        raise error(f"{field} is stored as JSON that is malformed or outside the limits") from None
    _admit(value, error=error, limit_bytes=limit_bytes, field=field)
    return value


def _admit(value: JsonValue, *, error: type[ValidationError], limit_bytes: int, field: str) -> None:
    """Nothing happened: the value is strict JSON. Otherwise ``error`` was raised without a trace of the value."""
    try:
        _measure(value, 1, limit_bytes)
    except _Refused as refusal:
        raise error(f"{field}{''.join(reversed(refusal.path))} {refusal.reason}") from None
    except _TooLarge:
        raise error(f"{field} is larger than {limit_bytes:,} bytes") from None
    except RuntimeError:  # RecursionError near the end of the caller's stack, or a dict that changed meanwhile
        raise error(f"{field} cannot be stored as JSON") from None


def _measure(value: object, depth: int, limit: int) -> int:
    """A lower bound of the JSON text's bytes. It bounds the walk too: a list that holds itself, or holds one list
    twice on each of 64 levels, is refused after ``limit`` steps."""
    kind = type(value)
    if kind is str:
        return _measure_text(value)  # type: ignore[arg-type]  # an exact type narrows nothing here
    if kind is dict:
        return _measure_object(value, depth, limit)  # type: ignore[arg-type]
    if kind is list or kind is tuple:
        return _measure_array(value, depth, limit)  # type: ignore[arg-type]
    return _measure_scalar(value)


def _measure_object(value: dict[object, object], depth: int, limit: int) -> int:
    """The common members are judged in place: a call for each would double the cost of an enqueue."""
    size = _size_of_container(len(value), depth, limit)
    for key, item in value.items():
        if type(key) is not str or not key.isascii() or "\0" in key:
            _check_key(key)
        size += len(key)  # type: ignore[arg-type]  # text, as was just checked
        kind = type(item)
        if kind is str and item.isascii() and "\0" not in item:  # type: ignore[attr-defined,operator]
            size += len(item)  # type: ignore[arg-type]
        elif kind not in _WEIGHTLESS and not (kind is int and -_WORD < item < _WORD):  # type: ignore[operator]
            size += _measure_member(item, path_step, key, depth, limit)
        if size > limit:
            raise _TooLarge
    return size


def _measure_array(value: list[object] | tuple[object, ...], depth: int, limit: int) -> int:
    size = _size_of_container(len(value), depth, limit)
    for index, item in enumerate(value):
        kind = type(item)
        if kind not in _WEIGHTLESS and not (kind is int and -_WORD < item < _WORD):  # type: ignore[operator]
            size += _measure_member(item, _index_step, index, depth, limit)
        if size > limit:
            raise _TooLarge
    return size


def _measure_member(item: object, step: Callable[[Any], str], place: object, depth: int, limit: int) -> int:
    try:
        return _measure(item, depth + 1, limit)
    except _Refused as refusal:
        refusal.path.append(step(place))
        raise


def _check_key(key: object) -> None:
    if not isinstance(key, str):
        raise _Refused(f"has a key of type {_type_name(key)}; keys must be text")
    try:
        _measure_text(key)
    except _Refused as refusal:
        raise _Refused(f"has a key that {refusal.reason}") from None


def _size_of_container(length: int, depth: int, limit: int) -> int:
    """Each member takes at least its own byte and a comma."""
    if depth > MAX_DEPTH:
        raise _Refused(f"is nested deeper than {MAX_DEPTH} levels")
    if 2 * length > limit:
        raise _TooLarge
    return 2 * length


def _measure_text(text: str) -> int:
    plain = text if type(text) is str else str.__str__(text)
    if "\0" in plain:
        raise _Refused("contains a NUL character")
    if not plain.isascii():
        try:
            plain.encode()
        except UnicodeEncodeError:
            raise _Refused("contains a lone surrogate") from None
    return len(plain)


def _measure_scalar(value: object) -> int:
    if value is None or value is True or value is False:
        return 0
    if isinstance(value, int):
        number = int.__int__(value)
        if -_WORD < number < _WORD:
            return 0
        if not -_HUGE < number < _HUGE:
            raise _Refused(f"is an integer of more than {MAX_DIGITS:,} digits")
        return number.bit_length() // 4
    if isinstance(value, float):
        if float.__sub__(value, value) != 0.0:
            raise _Refused("is not a finite number")
        return 0
    if isinstance(value, str):
        return _measure_text(value)
    raise _Refused(f"is a {_type_name(value)}, which JSON does not have")


def path_step(key: str) -> str:
    """How a key stands in a path: ``.key``, or ``.?`` when it is too long or not printable."""
    return f".{str.__str__(key)}" if len(key) <= TAG_LIMIT and key.isprintable() else ".?"


def _index_step(index: int) -> str:
    return f"[{index}]"


def _type_name(value: object) -> str:
    return clean_text(type(value).__name__, TAG_LIMIT)


def clean_text(text: object, limit_bytes: int, *, keep_end: bool = False) -> str:
    """Text that PostgreSQL stores, for what must be written whatever it is: without NUL and surrogates, cut on a
    character with an ellipsis to ``limit_bytes`` of UTF-8, from the front with ``keep_end``. Never fails."""
    plain = text if type(text) is str else _text_of(text)
    if "\0" in plain:
        plain = plain.replace("\0", "")
    if len(plain) <= limit_bytes and plain.isascii():
        return plain
    data = plain.encode("utf-8", "ignore")
    if len(data) > limit_bytes:
        room = max(limit_bytes - len(_ELLIPSIS), 0)
        data = _ELLIPSIS + data[len(data) - room :] if keep_end else data[:room] + _ELLIPSIS
    return data.decode("utf-8", "ignore")


def _text_of(value: object) -> str:
    try:
        return str.__str__(str(value))
    except BaseException:  # the text of an error must never end the worker, whatever its __str__ raises
        return f"<{type(value).__name__} without text>"


def check_identifier(
    value: object,
    *,
    field: str,
    error: type[ValidationError] = InvalidIdentifier,
    limit_bytes: int = IDENTIFIER_LIMIT,
) -> str:
    """The identifier in NFC: normalised, so that two spellings of one name are one name. Non-empty, printable,
    without surrounding blanks, at most ``limit_bytes`` of UTF-8.

    Raises ``error``, which names ``field`` and never the value.
    """
    if not isinstance(value, str):
        raise error(f"{field} must be text, not {_type_name(value)}")
    text = str.__str__(value)
    if not text.isascii() and len(text) <= 4 * limit_bytes:
        text = unicodedata.normalize("NFC", text)
    flaw = _flaw_of_identifier(text, limit_bytes)
    if flaw is not None:
        raise error(f"{field} {flaw}")
    return text


def _flaw_of_identifier(text: str, limit_bytes: int) -> str | None:
    if not text:
        return "is empty"
    if len(text) > limit_bytes:
        return f"is longer than {limit_bytes} bytes"
    if not text.isprintable():
        return "contains a character that cannot be printed"
    if text[0] == " " or text[-1] == " ":
        return "begins or ends with a blank"
    if text.isascii():
        return None
    if not _PRINTED_BLANKS.isdisjoint(text):
        return "contains a character that shows nothing"
    return f"is longer than {limit_bytes} bytes" if len(text.encode()) > limit_bytes else None
