"""Typed payloads: a table of what each kind of type takes and refuses, by path and without the value."""

import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, TypedDict, Union
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runledger.core.errors import InvalidHandler, InvalidPayload
from runledger.core.gate import encode_json
from runledger.core.payloads import PayloadType, payload_type_of, plain_payload

ID = UUID("0192f5aa-0000-7000-8000-000000000001")
OrderNumber = NewType("OrderNumber", int)


class Colour(Enum):
    RED = "red"
    GREEN = "green"


class Size(IntEnum):
    SMALL = 1


class Odd(Enum):
    PAIR = (1, 2)


@dataclass
class Address:
    city: str
    zip_code: str | None = None


@dataclass
class Order:
    number: OrderNumber
    address: Address
    lines: list[Address] = field(default_factory=list)
    total: Decimal = Decimal(0)
    placed_at: datetime | None = None
    due: date | None = None
    customer: UUID | None = None
    colour: Colour = Colour.RED
    size: Size = Size.SMALL
    ratio: float = 1.0
    kind: Literal["retail", 2, None] = None
    labels: dict[str, int] = field(default_factory=dict)
    point: tuple[int, str] = (0, "")
    path: tuple[int, ...] = ()
    note: Annotated[Union[int, str], "either"] = ""  # noqa: UP007 - the older spelling is what is tested
    extra: Any = None
    parent: Optional["Order"] = None


@dataclass
class Even:
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"secret {self.number} is odd")


class Mail(TypedDict):
    to: str
    address: Address
    retries: NotRequired[int]


class Loose(TypedDict, total=False):
    when: datetime


class Model(pydantic.BaseModel):
    number: int
    customer: UUID | None = None
    colour: Colour = Colour.RED
    items: list[Address] = []
    from_: str = pydantic.Field("", alias="from")

    @pydantic.field_validator("number")
    @classmethod
    def is_positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError(f"secret {value}")
        return value


class Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")
    customer: UUID
    count: int = 0


class Struct(msgspec.Struct):
    number: int
    customer: UUID | None = None
    colour: Colour = Colour.RED
    items: list[Address] = []
    scores: dict[int, float] = {}


class StrictStruct(msgspec.Struct, forbid_unknown_fields=True):
    number: int


def type_of(annotation: Any) -> PayloadType:
    def handler(context: Any, payload: Any) -> None: ...

    handler.__annotations__["payload"] = annotation
    return payload_type_of(handler)


FULL_ORDER = Order(
    number=OrderNumber(7),
    address=Address("Köln", "50667"),
    lines=[Address("Bonn")],
    total=Decimal("12.50"),
    placed_at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    due=date(2026, 2, 1),
    customer=ID,
    colour=Colour.GREEN,
    size=Size.SMALL,
    ratio=0.5,
    kind="retail",
    labels={"a": 1},
    point=(1, "x"),
    path=(1, 2, 3),
    note=5,
    extra={"free": [1]},
    parent=Order(OrderNumber(6), Address("Bonn")),
)


@pytest.mark.parametrize(
    ("annotation", "instance"),
    [
        (Order, FULL_ORDER),
        (Order, Order(OrderNumber(1), Address("x"))),
        (Mail, {"to": "ada", "address": Address("x")}),
        (Mail, {"to": "ada", "address": Address("x"), "retries": 3}),
        (Loose, {}),
        (Loose, {"when": datetime(2026, 1, 1, tzinfo=UTC)}),
        (Model, Model(**{"number": 7, "customer": ID, "colour": "green", "items": [{"city": "x"}], "from": "y"})),
        (Strict, Strict(customer=ID)),
        (Struct, Struct(7, ID, Colour.GREEN, [Address("x")], {1: 0.5})),
        (StrictStruct, StrictStruct(1)),
        (list[Address], [Address("x"), Address("y", "1")]),
        (dict[str, Model], {"a": Model(number=1)}),
        (Model | None, None),
        (Strict | StrictStruct, StrictStruct(1)),
        (Optional[Order], FULL_ORDER),  # noqa: UP045
        (Sequence[int], [1, 2]),
        (Mapping[str, Any], {"a": [1]}),
        (int, 7),
        (Literal[1, True], True),
        (tuple[()], ()),
        (list["Address"], [Address("x")]),
        (list, [1, "a"]),
        (tuple, (1, "a")),
        (typing.List, [1, "a"]),  # noqa: UP006 - so are these
        (typing.Tuple, (1, "a")),  # noqa: UP006
        (typing.Dict[str, int], {"a": 1}),  # noqa: UP006
        (Mapping, {"a": [1]}),
        ("dict[str, Address]", {"a": Address("x")}),
        (Annotated[OrderNumber | None, "note"], 7),
        ("dict", {"a": 1}),
    ],
)
def test_an_instance_comes_back_as_it_was(annotation, instance):
    payload_type = type_of(annotation)
    stored = json.loads(encode_json(payload_type.to_json(instance), error=InvalidPayload))
    assert payload_type.from_json(stored) == instance
    assert payload_type.to_json(stored) == stored


def test_a_record_is_written_as_plain_json():
    assert type_of(Order).to_json(FULL_ORDER) | {"parent": None} == {
        "number": 7, "address": {"city": "Köln", "zip_code": "50667"}, "lines": [{"city": "Bonn", "zip_code": None}],
        "total": "12.50", "placed_at": "2026-01-02T03:04:05.000006+00:00", "due": "2026-02-01", "customer": str(ID),
        "colour": "green", "size": 1, "ratio": 0.5, "kind": "retail", "labels": {"a": 1}, "point": [1, "x"],
        "path": [1, 2, 3], "note": 5, "extra": {"free": [1]}, "parent": None,
    }  # fmt: skip


MINIMAL = {"number": 1, "address": {"city": "x"}}


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (Order, {}, "payload.number is missing"),
        (Order, {"number": 1}, "payload.address is missing"),
        (Order, [], "payload must be an object"),
        (Order, MINIMAL | {"secret": 1}, "payload.secret is not a field of Order"),
        (Order, MINIMAL | {"a\nb": 1}, "payload.? is not a field of Order"),
        (Order, MINIMAL | {"number": "secret"}, "payload.number must be int"),
        (Order, MINIMAL | {"number": True}, "payload.number must be int"),
        (Order, MINIMAL | {"number": 1.0}, "payload.number must be int"),
        (Order, MINIMAL | {"address": {"city": None}}, "payload.address.city must be str"),
        (Order, MINIMAL | {"address": {"city": "x", "zip_code": 5}}, "payload.address.zip_code must be str or null"),
        (Order, MINIMAL | {"lines": [{"city": "x"}, {}]}, "payload.lines[1].city is missing"),
        (Order, MINIMAL | {"lines": {}}, "payload.lines must be an array"),
        (Order, MINIMAL | {"total": "secret"}, "payload.total is not a valid Decimal"),
        (Order, MINIMAL | {"total": "NaN"}, "payload.total is not a valid Decimal"),
        (Order, MINIMAL | {"placed_at": "secret"}, "payload.placed_at must be datetime or null"),
        (Order, MINIMAL | {"customer": 7}, "payload.customer must be UUID or null"),
        (Order, MINIMAL | {"colour": "secret"}, "payload.colour is not one of the 2 values of Colour"),
        (Order, MINIMAL | {"colour": ["red"]}, "payload.colour is not one of the 2 values of Colour"),
        (Order, MINIMAL | {"size": True}, "payload.size is not one of the 1 values of Size"),
        (Order, MINIMAL | {"ratio": "1"}, "payload.ratio must be float"),
        (Order, MINIMAL | {"ratio": 10**400}, "payload.ratio is too large for float"),
        (Order, MINIMAL | {"kind": "other"}, "payload.kind is not one of the 3 values of the literal"),
        (Order, MINIMAL | {"labels": {"a": "b"}}, "payload.labels.a must be int"),
        (Order, MINIMAL | {"labels": {1: 1}}, "payload.labels has a key that is not text"),
        (Order, MINIMAL | {"point": [1]}, "payload.point must have 2 items"),
        (Order, MINIMAL | {"path": [1, "2"]}, "payload.path[1] must be int"),
        (Order, MINIMAL | {"note": []}, "payload.note must be int or str"),
        (Order, MINIMAL | {"parent": {"number": 1}}, "payload.parent.address is missing"),
        (Order, MINIMAL | {"parent": 5}, "payload.parent must be Order or null"),
        (Address | Mail, {"to": 1}, "payload must be Address or Mail"),
        (Even, {"number": 3}, "payload is refused by Even: ValueError"),
        (Mail, {"to": "x"}, "payload.address is missing"),
        (Mail, {"to": "x", "address": {"city": "y"}, "cc": "z"}, "payload.cc is not a field of Mail"),
        (Mail, {"to": "x", "address": {"city": "y"}, "retries": "z"}, "payload.retries must be int"),
        (date, "2026-13-01", "payload is not a valid date"),
        (Model, {"number": "secret"}, "payload.number does not fit Model: int_parsing"),
        (Model, {}, "payload.number does not fit Model: missing"),
        (Model, {"number": -5}, "payload.number does not fit Model: value_error"),
        (Model, {"number": 1, "items": [{"city": 1}]}, "payload.items[0].city does not fit Model: string_type"),
        (Model, [], "payload does not fit Model: model_type"),
        (Strict, {"customer": str(ID), "count": "5"}, "payload.count does not fit Strict: int_type"),
        (Strict, {"customer": str(ID), "x": 1}, "payload.x does not fit Strict: extra_forbidden"),
        (Struct, {"number": "secret"}, "payload.number does not fit Struct: Expected `int`, got `str`"),
        (Struct, {}, "payload does not fit Struct: Object missing required field `number`"),
        (Struct, {"number": 1, "colour": "secret"}, "payload.colour does not fit Struct: ValidationError"),
        (Struct, {"number": 1, "items": [{}]},
         "payload.items[0] does not fit Struct: Object missing required field `city`"),
        (StrictStruct, {"number": 1, "x": 2}, "payload does not fit StrictStruct: Object contains unknown field `x`"),
        (list[Model], [{"number": 1}, {}], "payload[1].number does not fit Model: missing"),
    ],
)  # fmt: skip
def test_a_misfit_is_refused_in_both_directions_by_path_and_without_the_value(annotation, value, message):
    payload_type = type_of(annotation)
    for convert in (payload_type.to_json, payload_type.from_json):
        with pytest.raises(InvalidPayload) as refusal:
            convert(value)
        assert str(refusal.value) == message
        assert refusal.value.__context__ is None or refusal.value.__suppress_context__


@pytest.mark.parametrize(
    ("annotation", "instance"),
    [
        (Order, Address("x")),
        (Address, Order(OrderNumber(1), Address("x"))),
        (Address, Address(7)),  # type: ignore[arg-type]
        (Order, Order(OrderNumber(1), Address("x"), placed_at="secret")),  # type: ignore[arg-type]
        (Order, Order(OrderNumber(1), Address("x"), due=datetime(2026, 1, 1, tzinfo=UTC))),
        (Order, Order(OrderNumber(1), Address("x"), colour=Size.SMALL)),  # type: ignore[arg-type]
        (Model, Model.model_construct(number="secret")),
        (Model, Model.model_construct(number=object())),
        (Struct, Struct("secret")),  # type: ignore[arg-type]
        (Struct, Struct(object())),  # type: ignore[arg-type]
        (Struct, Address("x")),
        (Model, Struct(1)),
        (Order, None),
    ],
)
def test_an_instance_that_breaks_its_own_annotations_is_refused_at_enqueue(annotation, instance):
    with pytest.raises(InvalidPayload) as refusal:
        type_of(annotation).to_json(instance)
    assert "secret" not in str(refusal.value)


def test_a_record_that_holds_itself_is_refused():
    order = Order(OrderNumber(1), Address("x"))
    order.parent = order
    with pytest.raises(InvalidPayload):
        type_of(Order).to_json(order)


def test_a_default_factory_is_not_shared_between_runs():
    first, second = (type_of(Order).from_json(MINIMAL) for _ in range(2))
    assert first.lines is not second.lines


@pytest.mark.parametrize("annotation", [dict, Any, None, object, type(None)])
def test_an_untyped_payload_is_any_json(annotation):
    payload_type = type_of(annotation)
    assert payload_type.is_plain
    assert payload_type.to_json([1]) == [1]
    assert payload_type_of(lambda context, payload: None).is_plain


@pytest.mark.parametrize(
    "annotation",
    [bytes, set, set[int], complex, dict[int, str], Odd, Literal[Colour.RED], type, callable,
     "Missing", "not an annotation", list[bytes], Order | bytes],  # type: ignore[name-defined]
)  # fmt: skip
def test_an_annotation_that_cannot_be_checked_is_refused_at_registration(annotation):
    with pytest.raises(InvalidHandler):
        type_of(annotation)


def test_an_annotation_in_quotes_is_resolved_and_the_others_need_not_exist():
    def handler(context: "OnlyForTypeCheckers", payload: "Order") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert payload_type_of(handler).from_json(MINIMAL) == Order(OrderNumber(1), Address("x"))


def test_the_annotation_of_a_method_or_callable_object_is_found():
    class Handler:
        def execute(self, context: Any, payload: "Address") -> None: ...

        def __call__(self, context: Any, payload: "Address") -> None: ...

    for handler in (Handler().execute, Handler()):
        assert payload_type_of(handler).from_json({"city": "x"}) == Address("x")


def test_an_instance_without_a_catalog_is_written_by_its_own_type():
    for instance in (Address("x"), Model(number=1), Struct(1)):
        json.dumps(plain_payload(instance))
    assert plain_payload(Address("x")) == {"city": "x", "zip_code": None}
    assert plain_payload(Address) is Address
    mark = object()
    assert plain_payload(mark) is mark


def test_a_handler_that_takes_no_payload_is_plain_and_one_without_parameters_to_read_is_refused():
    assert payload_type_of(lambda: None).is_plain
    with pytest.raises(InvalidHandler):
        payload_type_of(type)


def test_an_instance_that_cannot_be_serialised_is_refused_without_its_value():
    class Stubborn(pydantic.BaseModel):
        number: int

        @pydantic.field_serializer("number")
        def serialise(self, value: int) -> int:
            raise LookupError(f"secret {value}")

    with pytest.raises(InvalidPayload, match=r"^payload does not fit Stubborn: ") as refusal:
        plain_payload(Stubborn(number=1))
    assert "secret" not in str(refusal.value)


def test_an_instance_whose_type_cannot_be_checked_is_a_bad_payload():
    @dataclass
    class Blob:
        data: bytes

    for _ in range(2):
        with pytest.raises(InvalidPayload, match=r"^payload is a Blob"):
            plain_payload(Blob(b"secret"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(["", "red", str(ID), "2026-01-01"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["number", "address", "city", "parent", "lines", "items", "x"]), inner)
    ),
    max_leaves=8,
)


@given(st.sampled_from([Order, Mail, Model, Struct, list[Order], Model | Order | None]), JSON)
def test_whatever_was_stored_is_read_or_refused(annotation, value):
    payload_type = type_of(annotation)
    try:
        read = payload_type.from_json(value)
    except InvalidPayload:
        return
    assert payload_type.from_json(payload_type.to_json(read)) == read


def test_numbers_become_the_float_or_decimal_that_was_promised():
    assert type_of(float).from_json(3) == 3.0
    assert type(type_of(float).from_json(3)) is float
    assert type_of(Decimal).from_json(1.5) == Decimal("1.5")
    assert math.isclose(type_of(Order).from_json(MINIMAL | {"ratio": 2}).ratio, 2.0)
