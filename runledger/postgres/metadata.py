"""What all our tables share: the placeholder schema, and the collection that tests compare with the real one."""

from enum import StrEnum

from sqlalchemy import DateTime, MetaData
from sqlalchemy.dialects.postgresql import ENUM

SCHEMA = "runledger"
metadata = MetaData(schema=SCHEMA)

Timestamp = DateTime(timezone=True)


def enum_of(name: str, values: type[StrEnum]) -> ENUM:
    """The enum type ``name`` of the schema, which has ``values``."""
    return ENUM(*(value.value for value in values), name=name, schema=SCHEMA, create_type=False)
