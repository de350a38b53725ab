"""What all our tables share: the placeholder schema, and the collection that tests compare with the real one."""

from sqlalchemy import DateTime, MetaData

SCHEMA = "runledger"
metadata = MetaData(schema=SCHEMA)

Timestamp = DateTime(timezone=True)
