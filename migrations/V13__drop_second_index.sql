-- Why: V9 and V11 made the same index on revoked_tokens (until): each revocation wrote into both, and reads used one.
-- V9's goes: either would do, and V11 says what its own is for.
--
-- Locks a table of credentials for a moment.

DROP INDEX IF EXISTS tidewire.revoked_tokens_by_until;
