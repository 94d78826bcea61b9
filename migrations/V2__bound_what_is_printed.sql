-- Why: a number like 1e131071 takes a few bytes in the table and 131,072 characters when it is read; a row of some kilobytes
-- could be printed as gigabytes, and stop every reader of the log. So what SQL writers store is bounded by its text, as the
-- server bounds what it takes. gdpr is bounded by its text as well: its binary form takes up to six times as much.
--
-- Locks the log until it has read every row once.
ALTER TABLE tidewire.events
    DROP CONSTRAINT events_gdpr_is_object,
    ADD CONSTRAINT events_gdpr_is_object CHECK (jsonb_typeof(gdpr) = 'object' AND octet_length(gdpr::text) <= 4096),
    ADD CONSTRAINT events_data_is_short CHECK (octet_length(data::text) <= 4194304);
