//! What can go wrong with the log, and the one place where SQLSTATEs get meaning.
//!
//! # Invariants
//! - A variant exists only if a caller acts on it. `Unavailable` alone may be retried as it is.

use std::time::Duration;

use tokio_postgres::error::SqlState;

use super::breaker::Tripped;
use super::trouble::Finding;
use crate::event::cursor::CursorError;
use crate::event::{Position, Seq};
use crate::pg::{ConnectError, Resource, told};

/// Errors of a batch whose cause is not known and that are yet taken for a member's own.
const INTERNAL_ERRORS_MAX: usize = 16;

/// The database cannot be asked now.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// No connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke, or the database is going down or starting.
    #[error("the database connection was lost: {}", told(.0))]
    Lost(tokio_postgres::Error),
    /// No answer within the time allowed.
    #[error("the database did not answer in time")]
    Silent,
    /// It is left alone for a while.
    #[error(transparent)]
    Tripped(#[from] Tripped),
    /// The database says that it has run out of something.
    #[error("{}", .0.lack())]
    Lacking(Resource),
    /// No free connection within the time allowed.
    #[error("no database connection was free in time: {0}")]
    Pool(String),
}

impl From<tokio_postgres::Error> for Unavailable {
    fn from(error: tokio_postgres::Error) -> Self {
        // The database has ended the statement before its connection was given up.
        if error.code() == Some(&SqlState::QUERY_CANCELED) {
            Self::Silent
        } else {
            Self::Lost(error)
        }
    }
}

/// Why a page could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Retention has overtaken the cursor.
    #[error("the events after this cursor have been removed by retention")]
    Expired {
        /// The earliest usable position.
        earliest: Position,
    },
    /// The cursor lies ahead of the log.
    #[error("this cursor lies ahead of the log")]
    Ahead,
    /// As many of the tenant's administrative requests wait already as may.
    #[error("too many administrative requests of this tenant are waiting")]
    Crowded,
    /// The database cannot be asked now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A fault of ours.
    #[error("reading the log failed: {}", told(.0))]
    Internal(tokio_postgres::Error),
}

/// Why a group of events was not stored.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The id was used with other content.
    #[error("the id of member {index} was used with other content")]
    IdConflict {
        /// Which member of the group.
        index: usize,
    },
    /// The subject's newest event is not the expected one.
    #[error("the newest event of member {index}'s subject is another")]
    ExpectConflict {
        /// Which member of the group.
        index: usize,
        /// The subject's newest event, if it has one.
        newest: Option<Position>,
    },
    /// Another member of the same request failed.
    #[error("another event of the same request was refused")]
    Skipped,
    /// `expect` is not a cursor of this log.
    #[error("member {index} expects something that is not a cursor of this log: {error}")]
    ExpectedCursor {
        /// Which member of the group.
        index: usize,
        /// What is wrong with it.
        error: CursorError,
    },
    /// The database refused the content: a rule that the server does not know.
    #[error("the database refused the event: {reason}")]
    Refused {
        /// The constraint's name or what the database said.
        reason: String,
    },
    /// The queue is full.
    #[error("too many events are waiting to be stored")]
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The database has failed again and again. Not stored, as far as is known: sending the same ids again is safe.
    #[error(transparent)]
    Tripped(#[from] Tripped),
    /// The database's clock went back: see `sql/functions/claim_floor.sql`.
    #[error("{0}")]
    Clock(String),
    /// Another transaction holds one of its ids or subjects: for a lane that may wait.
    #[error("another transaction is in the way")]
    Blocked,
    /// Not stored in time, or the outcome is unknown: sending the same ids again is safe.
    #[error("not stored in time: {0}")]
    Unavailable(#[from] Unavailable),
    /// A fault of ours.
    #[error("storing events failed: {0}")]
    Internal(String),
}

impl AppendError {
    /// Whether the same may be stored later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Blocked
                | Self::Overloaded { .. }
                | Self::Tripped(_)
                | Self::Clock(_)
                | Self::Unavailable(_)
        )
    }

    /// The same error for another member of the batch.
    pub(super) fn twin(&self) -> Self {
        match self {
            Self::Refused { reason } => Self::Refused {
                reason: reason.clone(),
            },
            Self::IdConflict { index } => Self::IdConflict { index: *index },
            Self::ExpectConflict { index, newest } => Self::ExpectConflict {
                index: *index,
                newest: *newest,
            },
            Self::Skipped => Self::Skipped,
            Self::Clock(text) => Self::Clock(text.clone()),
            Self::Blocked => Self::Blocked,
            Self::Tripped(tripped) => Self::Tripped(*tripped),
            Self::Unavailable(Unavailable::Lacking(resource)) => {
                Self::Unavailable(Unavailable::Lacking(*resource))
            }
            Self::Unavailable(_) => Self::Unavailable(Unavailable::Silent),
            other => Self::Internal(other.to_string()),
        }
    }

    /// Whether the fault lies in what was written, as far as is known, and not in the database. An error that is not known
    /// may be either: so many of a batch are taken for a member's own, and then it is everybody's.
    pub(super) fn is_of_content(&self, internal_errors: &mut usize) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Internal(_) => {
                *internal_errors = internal_errors.saturating_add(1);
                *internal_errors <= INTERNAL_ERRORS_MAX
            }
            _ => false,
        }
    }

    /// The same error, of the member at this place.
    #[must_use]
    pub fn at(self, index: usize) -> Self {
        match self {
            Self::IdConflict { .. } => Self::IdConflict { index },
            Self::ExpectConflict { newest, .. } => Self::ExpectConflict { index, newest },
            Self::ExpectedCursor { error, .. } => Self::ExpectedCursor { index, error },
            other => other,
        }
    }
}

/// What to do after a statement failed.
#[derive(Debug)]
pub enum Remedy {
    /// The connection is gone: open another and try again.
    Reconnect(Unavailable),
    /// Another transaction was in the way: try again at once.
    Retry(tokio_postgres::Error),
    /// Another transaction holds one of its ids or subjects, or the log itself, and has not let go in time.
    Wait(tokio_postgres::Error),
    /// One of the ids is known: look before writing.
    LookUp,
    /// The content is at fault.
    Refuse(AppendError),
}

/// Reads an error of a statement that writes.
#[must_use]
pub fn remedy(error: tokio_postgres::Error) -> Remedy {
    let Some(db) = error.as_db_error() else {
        return if error.is_closed() || is_io(&error) {
            Remedy::Reconnect(Unavailable::Lost(error))
        } else {
            Remedy::Refuse(AppendError::Internal(told(&error)))
        };
    };
    let code = db.code();
    if is_going(code) {
        return Remedy::Reconnect(Unavailable::Lost(error));
    }
    match code.code() {
        "23505" if db.constraint() == Some("event_id_is_unique") => Remedy::LookUp,
        "55P03" => Remedy::Wait(error),
        "40001" | "40P01" | "57014" => Remedy::Retry(error),
        "TW503" => Remedy::Refuse(AppendError::Clock(db.message().to_owned())),
        state
            if state.starts_with("22")
                || state.starts_with("23")
                || state.starts_with("54")
                || state.starts_with("TW") =>
        {
            let reason = db.constraint().unwrap_or_else(|| db.message()).to_owned();
            Remedy::Refuse(AppendError::Refused { reason })
        }
        // Connection slots, memory, disk: the database's own trouble, perhaps gone in a moment.
        state if state.starts_with("53") || state.starts_with("58") => Remedy::Retry(error),
        _ => Remedy::Refuse(AppendError::Internal(told(&error))),
    }
}

/// What a statement that writes has found out of the database.
#[must_use]
pub fn finding(remedy: &Remedy) -> Finding {
    match remedy {
        // It answers that nothing can be written there.
        Remedy::Reconnect(Unavailable::Lost(error))
            if error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION) =>
        {
            Finding::Failing
        }
        Remedy::Reconnect(_) => Finding::Away,
        Remedy::Retry(error) => match error.code().map(SqlState::code) {
            Some("40001" | "40P01") => Finding::There,
            // It has run out of something, or of the time a statement may take.
            _ => Finding::Failing,
        },
        Remedy::Wait(_) | Remedy::LookUp | Remedy::Refuse(_) => Finding::There,
    }
}

impl From<tokio_postgres::Error> for ReadError {
    fn from(error: tokio_postgres::Error) -> Self {
        let is_lost = match error.code() {
            Some(code) => {
                is_going(code)
                    || matches!(code.code(), "40001" | "40P01" | "57014" | "55P03")
                    || code.code().starts_with("53")
            }
            None => error.is_closed() || is_io(&error),
        };
        if is_lost {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error)
        }
    }
}

fn is_going(code: &SqlState) -> bool {
    code.code().starts_with("08")
        || matches!(
            code.code(),
            "57P01" | "57P02" | "57P03" | "57P05" | "25006" | "25P03"
        )
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    use std::error::Error as _;
    error
        .source()
        .is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
}

/// A cursor's place against the log's two ends.
///
/// # Errors
/// If retention has overtaken it, or it lies ahead of the log.
pub fn check_bounds(after: Position, retained: Position, newest: Seq) -> Result<(), ReadError> {
    if after.seq < retained.seq {
        Err(ReadError::Expired { earliest: retained })
    } else if after.seq > newest {
        Err(ReadError::Ahead)
    } else {
        Ok(())
    }
}
