"""What keeps the server from tidying up, and what runs out: snapshots, slots, dead rows, sequences, indexes."""

import re

from sqlalchemy import text

from runledger.postgres.checks.check import Check, sql_check
from runledger.postgres.connection import LedgerConnection
from runledger.postgres.migrations import bundled_migrations
from runledger.postgres.statements import Statement

SELECT_INDEXES = Statement(
    "select_index_names",
    text("SELECT indexname FROM pg_catalog.pg_indexes WHERE schemaname = CAST(:schema AS text)"),
)
_MADE = re.compile(r"(?:CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?|CONSTRAINT (?=pk_|uq_))(\w+)")
_DROPPED = re.compile(r"DROP (?:INDEX|CONSTRAINT) (?:CONCURRENTLY )?(?:IF EXISTS )?(\w+)")

OLD_TRANSACTIONS = """
SELECT format('session %s (%s, %s) is %s in a transaction of %s', pid, usename,
              coalesce(nullif(application_name, ''), 'no name'), state,
              date_trunc('second', now() - xact_start))
FROM pg_catalog.pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR state LIKE 'idle in transaction%')
    AND xact_start < now() - interval '10 minutes'
"""

PREPARED_TRANSACTIONS = """
SELECT format('%s of %s, prepared %s ago', gid, owner, date_trunc('second', now() - prepared))
FROM pg_catalog.pg_prepared_xacts
WHERE database = current_database() AND prepared < now() - interval '5 minutes'
"""

LEASE_TOKENS = """
WITH given AS (
    SELECT lease_token FROM runledger.job_leases
    UNION ALL (SELECT lease_token FROM runledger.job_attempts ORDER BY job_id DESC LIMIT 1000)
)
SELECT format('the sequence stands at %s, and token %s was given out', coalesce(last_value, 0), newest)
FROM (SELECT max(lease_token) AS newest FROM given) AS known, pg_catalog.pg_sequences
WHERE schemaname = CAST(:schema AS text) AND sequencename = 'lease_token' AND newest > coalesce(last_value, 0)
    AND has_sequence_privilege(format('%I.%I', schemaname, sequencename), 'SELECT, USAGE')
"""
"""A dump carries sequences, logical replication does not: then a token is given out twice, and the fence has a hole."""


def _missing_indexes(ledger: LedgerConnection) -> list[str]:
    expected: set[str] = set()
    for migration in bundled_migrations():
        expected -= set(_DROPPED.findall(migration.sql))
        expected |= set(_MADE.findall(migration.sql))
    there = {row[0] for row in ledger.fetch(SELECT_INDEXES, {"schema": ledger.schema})}
    return [f"index {name} is missing" for name in sorted(expected - there)]


STORAGE_CHECKS = (
    Check(
        "indexes-present",
        "every index of the migrations is there",
        "create it again as in the migrations, which `runledger migrate --sql` prints",
        _missing_indexes,
    ),
    sql_check(
        "indexes-valid",
        "every index is valid",
        "REINDEX INDEX CONCURRENTLY …",
        """
        SELECT format('index %s of %s', i.indexrelid::regclass, i.indrelid::regclass) FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = to_regnamespace(:schema) AND NOT (i.indisvalid AND i.indisready)
        """,
    ),
    sql_check(
        "constraints-validated",
        "every constraint is validated",
        "mend the rows it refuses, then ALTER TABLE … VALIDATE CONSTRAINT …",
        """
        SELECT format('constraint %s of %s', conname, conrelid::regclass) FROM pg_catalog.pg_constraint
        WHERE connamespace = to_regnamespace(:schema) AND NOT convalidated
        """,
    ),
    sql_check(
        "oldest-snapshot",
        "no session keeps a snapshot or a transaction for ten minutes",
        "end it: SELECT pg_terminate_backend(PID); then find out who opened it",
        OLD_TRANSACTIONS,
    ),
    sql_check(
        "replication-slots",
        "no replication slot that nobody reads holds back vacuum or the log",
        "SELECT pg_drop_replication_slot(NAME) when its reader is gone for good",
        """
        SELECT format('slot %s (%s) is not active', slot_name, slot_type) FROM pg_catalog.pg_replication_slots
        WHERE NOT active AND (database IS NULL OR database = current_database())
        """,
    ),
    sql_check(
        "prepared-transactions",
        "no prepared transaction is left for five minutes",
        "end it as its coordinator decided: COMMIT PREPARED … or ROLLBACK PREPARED …",
        PREPARED_TRANSACTIONS,
    ),
    sql_check(
        "dead-rows",
        "vacuum keeps up with the hot tables",
        "look for an old snapshot first, then VACUUM (VERBOSE) …; see docs/operations/vacuum.md",
        """
        SELECT format('%s: %s dead rows beside %s live ones', relname, n_dead_tup, n_live_tup)
        FROM pg_catalog.pg_stat_user_tables
        WHERE schemaname = CAST(:schema AS text) AND n_dead_tup > 100000 + 2 * n_live_tup
        """,
    ),
    sql_check(
        "bloat",
        "the hot tables are as small as what is in them",
        "VACUUM (FULL) … while the workers are stopped, once nothing holds back vacuum any more",
        """
        SELECT format('%s: %s for %s rows', c.relname, pg_size_pretty(pg_relation_size(c.oid)), s.n_live_tup)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_stat_user_tables s ON s.relid = c.oid
        WHERE c.relnamespace = to_regnamespace(:schema) AND c.relname IN ('job_ready', 'job_scheduled', 'job_leases')
            AND pg_relation_size(c.oid) > 67108864 + 4096 * s.n_live_tup
        """,
        is_advice=True,
    ),
    sql_check(
        "sequences",
        "every sequence has more than a fifth of its numbers left",
        "ALTER SEQUENCE … AS bigint; a bigint one lasts for ever",
        """
        SELECT format('sequence %s: %s of %s', sequencename, last_value, max_value) FROM pg_catalog.pg_sequences
        WHERE schemaname = CAST(:schema AS text) AND last_value > max_value / 5 * 4
        """,
    ),
    sql_check(
        "lease-tokens-grow",
        "the next lease token is larger than every one before it",
        "stop all hosts and move the sequence beyond it; see docs/operations/high-availability.md",
        LEASE_TOKENS,
    ),
    sql_check(
        "transaction-ids",
        "the database is far from running out of transaction ids",
        "VACUUM (FREEZE) the tables with the oldest relfrozenxid, after ending what holds them back",
        """
        SELECT format('%s transactions since the oldest frozen one', age(datfrozenxid)) FROM pg_catalog.pg_database
        WHERE datname = current_database() AND age(datfrozenxid) > 1000000000
        """,
    ),
)
