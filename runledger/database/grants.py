"""Who may do what in the database: five roles, the rights of each with the reason, and the SQL that grants them.

The roles are groups without a login; the role an application connects as becomes a member of one or two. The table
below is also the page docs/operations/permissions.md, and tests connect as each role.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from runledger.core.errors import InvalidConfiguration
from runledger.postgres.statements import check_schema_name

DEFAULT_PREFIX = "runledger"
_PREFIX = re.compile(r"[a-z_][a-z0-9_]{0,39}")

READ = "SELECT"
CHANGE = "SELECT, INSERT, UPDATE"
ALL = "SELECT, INSERT, UPDATE, DELETE"


class Right(NamedTuple):
    """Privileges on one table, view or sequence of the schema."""

    target: str
    privileges: str
    why: str


class Role(NamedTuple):
    """``includes`` names roles whose rights it has too, server roles among them."""

    name: str
    purpose: str
    includes: tuple[str, ...] = ()
    rights: tuple[Right, ...] = ()


_RELEASE_STEP = "status, payload, job_id, dependency_count_pending, dependency_count_unsatisfied, released_at, "
_COUNT_STEPS = "status, unfinished_count, enqueued_count, waiting_count, failed_count, finished_at, updated_at, "

MIGRATOR = Role("migrator", "whoever runs `runledger migrate`: owns the schema, and may create in the database")
ENQUEUER = Role(
    "enqueuer",
    "a web application: enqueues jobs and workflow runs, waits for what became of them",
    rights=(
        Right("runledger_migration_history", READ, "to see at the start whether the schema fits the package"),
        Right("job_definitions", READ, "whether a type is enabled, and the defaults of its jobs"),
        Right("job_queue", "SELECT, INSERT", "the record of a job; a keyed retry is compared with what is stored"),
        Right(
            "job_queue",
            "UPDATE (idempotency_key, idempotency_expires_at, active_key)",
            "a key that has expired, or whose job has ended, is taken from the job that had it",
        ),
        Right("job_ready", "INSERT", "a job that is due goes to its place"),
        Right("job_scheduled", "INSERT", "so does one that is due later"),
        Right("job_leases", "SELECT (job_id)", "a keyed retry is told whether the job is running"),
        Right("job_listeners", READ, "whether an idle host wants to be woken"),
        Right("jobs", READ, "`get_job` and `wait_for_job`"),
        Right("workflow_runs", "SELECT, INSERT", "a run, and what became of it"),
        Right("workflow_steps", "SELECT, INSERT", "its steps, and what became of them"),
        Right("workflow_step_dependencies", "SELECT, INSERT", "its edges"),
        Right(
            "workflow_steps",
            f"UPDATE ({_RELEASE_STEP}finished_at, status_reason, last_error_code)",
            "the enqueue of a run releases its first steps",
        ),
        Right("workflow_runs", f"UPDATE ({_COUNT_STEPS}holds_active_key)", "and counts them"),
    ),
)
READER = Role(
    "reader",
    "metrics, dashboards, `runledger job list`, `job explain`, `doctor`, `preflight`; sees payloads",
    includes=("pg_monitor",),
    rights=(
        Right("ALL TABLES", READ, "every list, and the invariants that `doctor` checks"),
        Right("ALL SEQUENCES", READ, "`doctor` looks how many numbers are left"),
    ),
)
WORKER = Role(
    "worker",
    "the processes of `runledger worker`, `scheduler` and `reaper`, and what handlers do with the catalog",
    includes=("enqueuer",),
    rights=(
        Right("lease_token", "USAGE", "each claim draws a token"),
        Right("job_ready", ALL, "claim, release and retry move jobs"),
        Right("job_scheduled", ALL, "retries wait there; promotion takes them out"),
        Right("job_leases", ALL, "claim, renew, settle, reap"),
        Right("job_starts", ALL, "claims count the starts of types with a rate limit"),
        Right("job_queue", "UPDATE", "the end of a job is written into its record"),
        Right("job_attempts", "SELECT, INSERT", "one row for each ended attempt"),
        Right("job_events", "SELECT, INSERT", "releases and cancellations"),
        Right("job_dead_letters", "INSERT", "what failed for good"),
        Right("job_logs", "SELECT, INSERT", "`context.log` and `insert_job_log`"),
        Right("job_listeners", ALL, "idle hosts say that they listen"),
        Right("job_workers", ALL, "hosts say which workers they have"),
        Right("job_definitions", CHANGE, "a starting worker stores the definitions of its catalog"),
        Right("job_schedules", CHANGE, "and its schedules; the scheduler moves their cursors"),
        Right("job_runtime_configs", READ, "handlers read the configuration of their type"),
        Right("job_metrics_rollup", ALL, "the reaper counts what ended"),
        Right("job_metrics_progress", ALL, "and how far it has counted"),
        Right("job_queue", "DELETE", "the reaper prunes, where a retention is set"),
        Right("job_attempts", "DELETE", "the same"),
        Right("job_events", "DELETE", "the same"),
        Right("job_logs", "DELETE", "the same"),
        Right("job_dead_letters", "SELECT (job_id), DELETE", "the same"),
        Right("operator_actions", "SELECT, DELETE", "the same"),
        Right("workflow_runs", "DELETE", "the same"),
        Right("workflow_runs", "UPDATE", "runs advance"),
        Right("workflow_steps", "UPDATE", "steps end and are released"),
        Right("workflow_run_mutations", "SELECT, INSERT", "handlers append steps"),
    ),
)
OPERATOR = Role(
    "operator",
    "people and programs that intervene: cancel, requeue, reschedule, prune, pause, gates, schedules, configurations",
    includes=("reader", "enqueuer"),
    rights=(
        Right("job_queue", "UPDATE, DELETE", "cancel and requeue change the record, `prune` deletes old ones"),
        Right("job_ready", ALL, "cancel, requeue and reschedule move jobs"),
        Right("job_scheduled", ALL, "the same"),
        Right("job_leases", "UPDATE, DELETE", "cancel takes the lease away; the worker notices"),
        Right("job_attempts", "INSERT, DELETE", "a cancelled attempt is recorded; `prune`"),
        Right("job_events", "INSERT, DELETE", "who did it, and why; `prune`"),
        Right("job_dead_letters", "DELETE", "`prune`"),
        Right("job_logs", "DELETE", "`prune`"),
        Right("operator_actions", "INSERT", "the same for what concerns many jobs"),
        Right("operator_actions", "UPDATE (affected, detail)", "its counts grow with each batch"),
        Right("job_definitions", "INSERT, UPDATE", "enable, disable, pause, `definition sync`"),
        Right("job_schedules", "INSERT, UPDATE, DELETE", "create, change, trigger and delete schedules"),
        Right("job_runtime_configs", "INSERT, UPDATE", "change configurations"),
        Right("workflow_runs", "UPDATE, DELETE", "cancel, rerun, complete a gate; `prune`"),
        Right("workflow_steps", "UPDATE", "the same"),
        Right("workflow_run_mutations", "INSERT", "append steps; note a rerun"),
    ),
)
ROLES = (MIGRATOR, ENQUEUER, READER, WORKER, OPERATOR)
"""In the order in which they are made: a role comes after those that it includes."""


def grants_as_sql(schema: str, *, prefix: str = DEFAULT_PREFIX) -> str:
    """One script after which each role has exactly the rights of its table on ``schema``, which must be migrated.

    May be run again at any time, and must be after an upgrade. The first run needs a superuser; later ones the owner
    of the schema, who then is the migrator. Role names are ``PREFIX_ROLE``, with a prefix of at most 40 letters.
    Raises InvalidConfiguration for a prefix or a schema that is no plain lower-case identifier.
    """
    check_schema_name(schema)
    if not _PREFIX.fullmatch(prefix) or prefix.startswith("pg_"):
        raise InvalidConfiguration("the prefix of roles must be a plain lower-case identifier of at most 40 characters")
    parts = [
        "BEGIN;",
        *(_create(_named(prefix, role.name)) for role in ROLES),
        _own(schema, _named(prefix, "migrator")),
    ]
    for role in ROLES[1:]:
        parts += ["", f"-- {role.name}: {role.purpose}", *_grants(schema, prefix, role)]
    return "\n".join([*parts, "COMMIT;"])


def _named(prefix: str, role: str) -> str:
    return role if role.startswith("pg_") else f"{prefix}_{role}"


def _create(name: str) -> str:
    return (
        f"DO $$ BEGIN CREATE ROLE {name} NOLOGIN; "
        "EXCEPTION WHEN duplicate_object OR insufficient_privilege THEN "
        f"IF to_regrole('{name}') IS NULL THEN RAISE; END IF; END $$;"
    )


def _own(schema: str, migrator: str) -> str:
    """Ownership is what ALTER TABLE asks for; the schema itself can be made by whoever may create in the database."""
    return f"""DO $$
DECLARE command text;
BEGIN
    IF NOT has_database_privilege('{migrator}', current_database(), 'CREATE') THEN
        EXECUTE format('GRANT CREATE ON DATABASE %I TO {migrator}', current_database());
    END IF;
    FOR command IN
        SELECT 'ALTER SCHEMA {schema} OWNER TO {migrator}' FROM pg_namespace
        WHERE oid = '{schema}'::regnamespace AND nspowner <> '{migrator}'::regrole
        UNION ALL
        SELECT format('ALTER %s %s OWNER TO {migrator}',
                      CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass)
        FROM pg_class c
        WHERE relnamespace = '{schema}'::regnamespace AND relowner <> '{migrator}'::regrole
            AND relkind IN ('r', 'v', 'S') AND NOT EXISTS (
                SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
                    AND relkind = 'S')
        UNION ALL
        SELECT format('ALTER TYPE %s OWNER TO {migrator}', oid::regtype) FROM pg_type
        WHERE typnamespace = '{schema}'::regnamespace AND typowner <> '{migrator}'::regrole AND typtype = 'e'
        UNION ALL
        SELECT format('ALTER FUNCTION %s OWNER TO {migrator}', oid::regprocedure) FROM pg_proc
        WHERE pronamespace = '{schema}'::regnamespace AND proowner <> '{migrator}'::regrole
    LOOP
        EXECUTE command;
    END LOOP;
END $$;"""  # noqa: S608 - the names come from closed alphabets


def _grants(schema: str, prefix: str, role: Role) -> Iterator[str]:
    name = _named(prefix, role.name)
    yield f"REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {name};"
    yield f"REVOKE ALL ON ALL SEQUENCES IN SCHEMA {schema} FROM {name};"
    yield f"GRANT USAGE ON SCHEMA {schema} TO {name};"
    yield f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {name};"
    for included in role.includes:
        group = _named(prefix, included)
        yield (
            f"DO $$ BEGIN IF NOT pg_has_role('{name}', '{group}', 'MEMBER') THEN GRANT {group} TO {name}; "
            "END IF; END $$;"
        )
    for right in role.rights:
        yield f"GRANT {right.privileges} ON {_target(schema, right.target)} TO {name};"


def _target(schema: str, target: str) -> str:
    if target.startswith("ALL "):
        return f"{target} IN SCHEMA {schema}"
    return f"SEQUENCE {schema}.{target}" if target == "lease_token" else f"{schema}.{target}"
