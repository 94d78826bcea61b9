//! Who appended in SQL, on its way into the tenants' own logs.
//!
//! # Invariants
//! - Taken and written in one transaction of the database (`sql/functions/record_sql_appends.sql`): two servers count nothing
//!   twice, and one that dies loses nothing.
//! - Over a connection of its own, which nobody waits for.

use super::error::Unavailable;
use super::read::History;
use crate::event::limits::{DATABASE_SILENCE_MAX, STATEMENT_MAX};

const RECORD: &str = "SELECT tidewire.record_sql_appends($1, $2)";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[RECORD];

/// Statements of writers that are taken at once: some 50 ms, for which the watermark stands.
const ROWS_MAX: i32 = 2_000;
/// And that are taken where even this many did not end in time.
const ROWS_MIN: i32 = 20;

impl History {
    /// Writes all there is, or with `is_written` false forgets it. Where the database is too slow for as many rows as usual,
    /// fewer are taken at once.
    ///
    /// # Errors
    /// If the database cannot be asked in time, were it for the fewest rows. What was not written is found by the next call.
    pub async fn record_sql_appends(&self, is_written: bool) -> Result<(), Unavailable> {
        let client = self.connector().connect("audit").await?;
        let bounded = format!("SET statement_timeout = {}", STATEMENT_MAX.as_millis());
        let mut rows = ROWS_MAX;
        loop {
            let work = async {
                client.batch_execute(&bounded).await?;
                let row = client.query_one(RECORD, &[&rows, &is_written]).await?;
                Ok(row.try_get::<_, i64>(0)?)
            };
            let answered = tokio::time::timeout(DATABASE_SILENCE_MAX, work).await;
            match answered.map_err(|_| Unavailable::Silent)? {
                Ok(taken) if taken < i64::from(rows) => return Ok(()),
                Ok(_) => rows = rows.saturating_mul(2).min(ROWS_MAX),
                // The database ended it by itself: the connection is as good as before.
                Err(Unavailable::Silent) if rows > ROWS_MIN => rows = (rows / 8).max(ROWS_MIN),
                Err(error) => return Err(error),
            }
        }
    }
}
