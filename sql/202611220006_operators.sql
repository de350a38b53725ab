-- What operators need: configs that two people cannot overwrite unseen, and a record of what was done to many rows.

ALTER TABLE job_runtime_configs
    ADD COLUMN revision bigint NOT NULL DEFAULT 1,
    ADD COLUMN changed_by text;

-- One row for each change of a config and each bulk operation: what was chosen, by whom, why, and how many it hit.
CREATE TABLE operator_actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    action text NOT NULL,
    actor text,
    reason text,
    selection jsonb NOT NULL DEFAULT '{}',
    affected bigint NOT NULL DEFAULT 0,
    detail jsonb NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT ck_operator_actions_action_not_blank CHECK (length(btrim(action)) > 0)
);

-- Lists of one organization, and of cancelled jobs. Neither is touched when a job without an organization is enqueued
-- or when any job succeeds.
CREATE INDEX idx_job_queue_organization_id ON job_queue (organization_id, id) WHERE organization_id IS NOT NULL;
CREATE INDEX idx_job_events_canceled ON job_events (job_id) WHERE event_type = 'CANCELED';
