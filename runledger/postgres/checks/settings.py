"""Settings of the server and of our tables that durability, or a night without a call, depends on."""

from runledger.postgres.checks.check import sql_check

SETTING_CHECKS = (
    sql_check(
        "synchronous-commit",
        "a commit is on disk before it is confirmed",
        "ALTER DATABASE … SET synchronous_commit = on, or take it out of the role's and session's settings; the "
        "embedded server leaves it off on purpose",
        "SELECT 'synchronous_commit is off' WHERE current_setting('synchronous_commit') = 'off'",
    ),
    sql_check(
        "isolation-default",
        "transactions are READ COMMITTED by default, as keyed enqueues need",
        "ALTER DATABASE … SET default_transaction_isolation = 'read committed'",
        """
        SELECT format('default_transaction_isolation is %s', current_setting('default_transaction_isolation'))
        WHERE current_setting('default_transaction_isolation') <> 'read committed'
        """,
    ),
    sql_check(
        "idle-in-transaction-timeout",
        "a session that forgets its transaction is ended by the server",
        "ALTER DATABASE … SET idle_in_transaction_session_timeout = '10min'",
        """
        SELECT 'idle_in_transaction_session_timeout is 0: a forgotten transaction holds locks and dead rows for ever'
        WHERE current_setting('idle_in_transaction_session_timeout') = '0'
        """,
        is_advice=True,
    ),
    sql_check(
        "autovacuum",
        "autovacuum runs",
        "ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET track_counts = on; SELECT pg_reload_conf()",
        """
        SELECT format('%s is off', name) FROM unnest(ARRAY['autovacuum', 'track_counts']) AS name
        WHERE current_setting(name) = 'off'
        """,
    ),
    sql_check(
        "table-settings",
        "the hot tables keep their own vacuum settings",
        "ALTER TABLE … SET (…) as in the migrations, which `runledger migrate --sql` prints",
        """
        SELECT format('%s: %s', c.relname, coalesce(array_to_string(c.reloptions, ', '), 'no settings'))
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = to_regnamespace(:schema)
            AND c.relname IN ('job_queue', 'job_ready', 'job_scheduled', 'job_leases')
            AND (NOT coalesce(c.reloptions::text LIKE '%autovacuum_vacuum_threshold%', false)
                 OR c.reloptions::text LIKE '%autovacuum_enabled=false%'
                 OR c.reloptions::text LIKE '%autovacuum_enabled=off%')
        """,
    ),
)
