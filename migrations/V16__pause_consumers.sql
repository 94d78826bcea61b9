-- Why: an operator stops a consumer that does harm, or is in the way, without stopping a server; whichever server runs it.
--
-- Waits for the step that a consumer takes at that moment, and it for this: a table of a few rows.
ALTER TABLE tidewire.consumers
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text,
    ADD CONSTRAINT consumers_paused_is_whole CHECK ((paused_at IS NULL) = (paused_by IS NULL));
COMMENT ON COLUMN tidewire.consumers.paused_at IS 'Since when it takes no step, wherever it runs; null while it goes on.';
COMMENT ON COLUMN tidewire.consumers.paused_by IS 'Who paused it.';
