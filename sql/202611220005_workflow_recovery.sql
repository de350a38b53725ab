-- Runs that run another one again, and keys that one live run at a time may hold.

-- A key is held by a column of its own, which changes only where a key is: the updates of all other runs stay as cheap as
-- they were, because no index looks at anything that they change.
ALTER TABLE workflow_runs
    ADD COLUMN rerun_of_run_id uuid REFERENCES workflow_runs (id) ON DELETE SET NULL,
    ADD COLUMN active_key text,
    ADD COLUMN holds_active_key boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT ck_workflow_runs_active_key_not_blank CHECK (length(btrim(active_key)) > 0),
    ADD CONSTRAINT ck_workflow_runs_holds_active_key
        CHECK (holds_active_key = (active_key IS NOT NULL AND finished_at IS NULL));

CREATE UNIQUE INDEX uq_workflow_runs_active_key_org ON workflow_runs (workflow_type, organization_id, active_key)
    WHERE holds_active_key AND organization_id IS NOT NULL;
CREATE UNIQUE INDEX uq_workflow_runs_active_key_global ON workflow_runs (workflow_type, active_key)
    WHERE holds_active_key AND organization_id IS NULL;
CREATE INDEX idx_workflow_runs_rerun_of ON workflow_runs (rerun_of_run_id) WHERE rerun_of_run_id IS NOT NULL;
