-- Why: a rule whose batch takes longer than a statement may has it again and again, unless the next one is smaller.
--
-- Adds a column without touching rows: locks its table for a moment.

ALTER TABLE tidewire.retention_rules
    -- How many events its next batch looks at, after one that took too long; NULL: as many as the call allows.
    ADD COLUMN batch_rows integer CONSTRAINT retention_rules_batch_rows_are_some CHECK (batch_rows >= 1);

-- It takes one more argument now.
DROP FUNCTION IF EXISTS tidewire.lost_by_rules(regclass);
