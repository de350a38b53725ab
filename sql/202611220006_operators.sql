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
