"""Releases that differ by the migrations they carry: this one, and the one after it."""

from runledger.postgres.migrations import Migration, bundled_migrations

NEXT = Migration(
    version=299_901_010_001,
    name="next_release",
    sql="""
-- What migrations do: columns that may be null on tables that are in use, a table, an index, a setting.
ALTER TABLE job_queue ADD COLUMN of_next_release text;
ALTER TABLE job_ready ADD COLUMN of_next_release text;
ALTER TABLE job_leases ADD COLUMN of_next_release text;
ALTER TABLE job_attempts ADD COLUMN of_next_release text;
ALTER TABLE workflow_runs ADD COLUMN of_next_release text;
ALTER INDEX idx_job_attempts_finished SET (autosummarize = off);
CREATE TABLE of_next_release (id bigint PRIMARY KEY);
CREATE INDEX idx_job_definitions_next_release ON job_definitions (updated_at);
""",
)


def next_release() -> tuple[Migration, ...]:
    """What the next release carries."""
    return (*bundled_migrations(), NEXT)
