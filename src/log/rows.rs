//! Rows of the log, as many as fit.
//!
//! # Invariants
//! - What is held is bounded by bytes, whatever the rows weigh; there is always one row, if there is any.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::TryStreamExt as _;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};

/// What was read.
#[derive(Debug)]
pub struct Portion {
    /// In the order of the statement.
    pub rows: Vec<Row>,
    /// What they weigh.
    pub bytes: usize,
    /// Reading ended at the bound: there may be more.
    pub was_cut: bool,
}

/// Reads until there are no more rows or those that were read weigh `bytes_max`. What the database sends beyond that is
/// thrown away as it comes.
///
/// # Errors
/// As the database says.
pub async fn read(
    client: &Client,
    statement: &Statement,
    params: &[&(dyn ToSql + Sync)],
    bytes_max: usize,
) -> Result<Portion, tokio_postgres::Error> {
    let mut answer = pin!(client.query_raw(statement, params.iter().copied()).await?);
    let mut read = Portion {
        rows: Vec::new(),
        bytes: 0,
        was_cut: false,
    };
    while let Some(row) = answer.try_next().await? {
        read.bytes = read.bytes.saturating_add(row.raw_size_bytes());
        read.rows.push(row);
        if read.bytes >= bytes_max {
            read.was_cut = true;
            break;
        }
    }
    Ok(read)
}

/// How many rows to ask for, so that few are thrown away: learnt from what came last.
#[derive(Debug)]
pub struct Appetite {
    rows: AtomicUsize,
    rows_max: usize,
}

impl Appetite {
    /// Begins with `rows_max` rows, and never asks for more.
    #[must_use]
    pub const fn new(rows_max: usize) -> Self {
        Self {
            rows: AtomicUsize::new(rows_max),
            rows_max,
        }
    }

    /// Rows to ask for.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed).max(1)
    }

    /// Only `fitted` rows fitted.
    pub fn cut_at(&self, fitted: usize) {
        self.rows
            .store(fitted.min(self.rows_max), Ordering::Relaxed);
    }

    /// All of the `asked` rows came, and took less than half the room.
    pub fn had_room(&self, asked: usize) {
        let more = asked.saturating_mul(2).min(self.rows_max);
        self.rows.fetch_max(more, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_cut_as_many_are_asked_for_as_fitted_and_then_more_again() {
        let appetite = Appetite::new(100);
        assert_eq!(appetite.rows(), 100);
        appetite.cut_at(7);
        assert_eq!(appetite.rows(), 7);
        for expected in [14, 28, 56, 100, 100] {
            appetite.had_room(appetite.rows());
            assert_eq!(appetite.rows(), expected);
        }
        // Somebody who wanted few says nothing about how many there is room for.
        appetite.had_room(1);
        assert_eq!(appetite.rows(), 100);
        appetite.cut_at(0);
        assert_eq!(appetite.rows(), 1, "there is always room for one");
    }
}
