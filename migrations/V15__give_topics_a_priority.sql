-- Why: a producer that cannot be changed writes without a priority, and yet its topics may be urgent, or able to wait.
--
-- Waits for whoever reads or changes declared topics at that moment, and they for it: a small table is written anew.

-- specificity compares as that of tidewire.retention_rules: of the patterns that stand for a topic the most exact counts.
ALTER TABLE tidewire.declared_topics
    ADD COLUMN priority tidewire.priority,
    ADD COLUMN specificity text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        replace(regexp_replace(regexp_replace(pattern || '.', '[a-z0-9_-]+\.', '~', 'g'), '\*\.$', ' '), '*.', '!')) STORED;
COMMENT ON COLUMN tidewire.declared_topics.priority IS 'Of events that name none, over HTTP and with tidewire.append(); the most exact pattern counts that has one.';
