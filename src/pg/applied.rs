//! Which definitions a database has: a digest for each file, in `tidewire.definitions`.
//!
//! # Invariants
//! - A digest covers the table `tidewire.events` as well: a restored schema gets all definitions again, since a restore may
//!   leave privileges out.
//! - The digest of the grants covers which of the optional roles there are.

use sha2::{Digest as _, Sha256};
use tokio_postgres::{Client, Transaction};

use super::definitions::{DEFINITIONS, OPTIONAL_ROLES};

const APPLIED: &str = "SELECT file, digest FROM tidewire.definitions";
const SURROUNDINGS: &str = "
    SELECT 'tidewire.events'::regclass::oid::text,
           (SELECT coalesce(string_agg(r.rolname || '=' || r.oid, ' ' ORDER BY r.rolname), '')
              FROM pg_roles AS r WHERE r.rolname = ANY ($1))";
const RECORD: &str = "
    INSERT INTO tidewire.definitions AS d (file, digest) VALUES ($1, $2)
    ON CONFLICT (file) DO UPDATE SET digest = excluded.digest, applied_at = excluded.applied_at";
/// What has changed has to be granted again, also if this process ends before it comes to that.
const FORGET_GRANTS: &str = "DELETE FROM tidewire.definitions WHERE starts_with(file, 'grants/')";

/// A file that is to be applied.
#[derive(Debug)]
pub(super) struct Definition {
    pub(super) file: &'static str,
    pub(super) text: &'static str,
    digest: String,
}

impl Definition {
    /// `functions`, `triggers`, `views` or `grants`.
    pub(super) fn folder(&self) -> &'static str {
        self.file.split_once('/').map_or("", |(folder, _)| folder)
    }

    /// The file's name, which for triggers and views is that of their relation.
    pub(super) fn name(&self) -> &'static str {
        let name = self.file.rsplit('/').next().unwrap_or_default();
        name.trim_end_matches(".sql")
    }

    /// Remembers it as applied once the transaction commits.
    pub(super) async fn record(
        &self,
        transaction: &Transaction<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        if self.folder() != "grants" {
            transaction.execute(FORGET_GRANTS, &[]).await?;
        }
        transaction
            .execute(RECORD, &[&self.file, &self.digest])
            .await?;
        Ok(())
    }
}

/// The definitions that the database does not have, in their order; all of them if `everything`. Where there is one there
/// are the grants.
pub(super) async fn missing(
    client: &Client,
    everything: bool,
) -> Result<Vec<Definition>, tokio_postgres::Error> {
    let row = client
        .query_one(SURROUNDINGS, &[&OPTIONAL_ROLES.as_slice()])
        .await?;
    let (events, roles): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let mut applied = Vec::new();
    for row in client.query(APPLIED, &[]).await? {
        applied.push((row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?));
    }
    let mut missing = Vec::new();
    for &(file, text) in DEFINITIONS {
        let mut definition = Definition {
            file,
            text,
            digest: String::new(),
        };
        let is_of_grants = definition.folder() == "grants";
        definition.digest = digest(&[text, &events, if is_of_grants { &roles } else { "" }]);
        let is_there = applied
            .iter()
            .any(|(name, digest)| name == file && *digest == definition.digest);
        if everything || !is_there || (is_of_grants && !missing.is_empty()) {
            missing.push(definition);
        }
    }
    Ok(missing)
}

fn digest(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    data_encoding::HEXLOWER.encode(&hasher.finalize())
}
