"""What a dead letter leaves behind in the statement that settles it: its snapshot, and a job for its hook."""

from sqlalchemy import CTE, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from runledger.core.states import JobStatus
from runledger.postgres.expressions import CLOCK, ONE, ZERO, constant, keyed, new_id
from runledger.postgres.tables import job_dead_letters, job_definitions, job_queue, job_ready


def dead_lettered(live: CTE) -> CTE:
    """One dead letter for each run that ended so; a run has at most one."""
    row = live.c
    return (
        upsert(job_dead_letters)
        .from_select(
            [
                "job_id",
                "run_number",
                "attempt",
                "job_type",
                "organization_id",
                "error_code",
                "error_message",
                "payload_snapshot",
                "checkpoint_snapshot",
                "failed_at",
            ],
            select(
                row.job_id,
                row.run_number,
                row.attempt,
                row.job_type,
                job_queue.c.organization_id,
                row.error_code,
                row.error_message,
                job_queue.c.payload,
                func.coalesce(row.checkpoint, job_queue.c.checkpoint),
                row.settled_at,
            )
            .select_from(live.join(job_queue, job_queue.c.id == row.job_id))
            .where(row.final_status == constant(JobStatus.DEAD_LETTERED.value)),
        )
        .on_conflict_do_nothing()
        .cte("dead_lettered")
    )


def hooks_of(live: CTE) -> tuple[CTE, CTE, CTE]:
    """A job for each dead letter whose type has a hook: delivered like any job, whoever dead-lettered."""
    row = live.c
    hook_definitions = job_definitions.alias("hook_definitions")
    detail = func.jsonb_build_object(
        *keyed(job_id=row.job_id, run_number=row.run_number, attempt=row.attempt, code=row.error_code),
        *keyed(message=row.error_message, reason=row.status_reason, payload=job_queue.c.payload),
    )
    hooks = (
        select(
            new_id().label("id"),
            hook_definitions.c.job_type,
            job_queue.c.organization_id,
            detail.label("payload"),
            hook_definitions.c.default_priority.label("priority"),
            hook_definitions.c.max_attempts,
            hook_definitions.c.default_timeout_seconds.label("timeout_seconds"),
            row.job_id.label("parent_job_id"),
            job_queue.c.headers,
        )
        .select_from(
            live.join(job_queue, job_queue.c.id == row.job_id)
            .join(job_definitions, job_definitions.c.job_type == row.job_type)
            .join(hook_definitions, hook_definitions.c.job_type == job_definitions.c.dead_letter_job_type)
        )
        .where(row.final_status == constant(JobStatus.DEAD_LETTERED.value))
        .cte("hooks")
        .prefix_with("MATERIALIZED")
    )
    recorded = insert(job_queue).from_select([column.name for column in hooks.c], select(hooks)).cte("hooks_recorded")
    readied = (
        insert(job_ready)
        .from_select(
            ["job_id", "next_run_at", "priority", "run_number", "attempt", "job_type"],
            select(hooks.c.id, CLOCK, hooks.c.priority, ONE, ZERO, hooks.c.job_type),
        )
        .cte("hooks_readied")
    )
    return hooks, recorded, readied
