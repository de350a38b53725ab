"""The tables of operators and of figures, none of them on the path of a job; ``tables.py`` has them all."""

from sqlalchemy import BigInteger, Column, Integer, SmallInteger, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB

from runledger.postgres.metadata import Timestamp, metadata

job_runtime_configs = Table(
    "job_runtime_configs",
    metadata,
    Column("job_type", Text, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("config", JSONB, nullable=False),
    Column("updated_by_user_id", Uuid),
    Column("created_at", Timestamp, nullable=False),
    Column("updated_at", Timestamp, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("changed_by", Text),
)

operator_actions = Table(
    "operator_actions",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("action", Text, nullable=False),
    Column("actor", Text),
    Column("reason", Text),
    Column("selection", JSONB, nullable=False),
    Column("affected", BigInteger, nullable=False),
    Column("detail", JSONB, nullable=False),
    Column("occurred_at", Timestamp, nullable=False),
)

job_metrics_rollup = Table(
    "job_metrics_rollup",
    metadata,
    Column("series", Text, primary_key=True),
    Column("slot", Timestamp, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("measure", Text, primary_key=True),
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("attempts", BigInteger, nullable=False),
)

job_metrics_progress = Table(
    "job_metrics_progress",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("counted_until", Timestamp, nullable=False),
    Column("safe_until", Timestamp, nullable=False),
    Column("seen_at", Timestamp, nullable=False),
    Column("seen_xid", BigInteger, nullable=False),
)
