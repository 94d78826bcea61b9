//! How rows of credentials and settings are read for whoever lists them.
//!
//! # Invariants
//! - Whoever may write the tables may write what no calendar of ours has: a row is shown as nearly as can be, and costs no other
//!   row its place in a list.

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Timestamp;

use super::ledger::LedgerError;
use crate::event::limits::LIST_MAX;

/// Rows that a list asks for: the last says only that there are more.
pub(super) const LIST_ROWS: i64 = LIST_MAX.saturating_add(1);

/// The first and the last moment that RFC 3339 can say.
const FIRST: DateTime<Utc> = moment(-62_135_596_800);
const LAST: DateTime<Utc> = moment(253_402_300_799);

const fn moment(seconds: i64) -> DateTime<Utc> {
    match DateTime::from_timestamp(seconds, 0) {
        Some(at) => at,
        None => DateTime::<Utc>::MAX_UTC,
    }
}

/// What is shown of [`LIST_ROWS`] rows, and whether there are more.
pub(super) fn page<T>(
    rows: &[Row],
    listed: impl Fn(&Row) -> Result<T, LedgerError>,
) -> Result<(Vec<T>, bool), LedgerError> {
    let most = usize::try_from(LIST_MAX).unwrap_or(usize::MAX);
    let page: Result<_, _> = rows.iter().take(most).map(listed).collect();
    Ok((page?, rows.len() > most))
}

/// Whether a statement has found as many as it was to, so that there may be more.
pub(super) fn is_full(found: impl TryInto<i64>, most: i64) -> bool {
    !found.try_into().is_ok_and(|found| found < most)
}

/// A time, if one stands there; what is beyond the calendar, as `infinity`, as its first or last moment.
pub(super) fn time(row: &Row, column: usize) -> Option<DateTime<Utc>> {
    match row.try_get(column) {
        Ok(None) => None,
        Ok(Some(Timestamp::Value(at))) => Some(shown(at)),
        Ok(Some(Timestamp::NegInfinity)) => Some(FIRST),
        // The calendar of PostgreSQL ends after that of `chrono`, and begins after it.
        Ok(Some(Timestamp::PosInfinity)) | Err(_) => Some(LAST),
    }
}

/// A time as it can be shown.
pub(super) fn shown(at: DateTime<Utc>) -> DateTime<Utc> {
    at.clamp(FIRST, LAST)
}

/// When tokens were revoked. Where that is no time, as `infinity`: all of them are.
pub(super) fn revoked_at(row: &Row, column: usize) -> DateTime<Utc> {
    row.try_get(column).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Topic patterns. What is null, or no list, is no pattern, which whoever reads them finds out.
pub(super) fn patterns(row: &Row, column: usize) -> Vec<String> {
    let texts: Vec<Option<String>> = row.try_get(column).unwrap_or_else(|_| vec![None]);
    texts.into_iter().map(Option::unwrap_or_default).collect()
}
