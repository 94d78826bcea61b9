//! Why the client gave up. What passes (a broken line, an overloaded server) is tried again and never ends up here,
//! but for a server that was never reached and one that stayed away too long.

use std::time::Duration;

use super::Problem;
use crate::tls::FileError;

/// An error that trying again at once would not mend.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL cannot be one.
    #[error("the server's address {0}")]
    Address(&'static str),
    /// The token cannot stand in a header.
    #[error("the token holds characters that no HTTP header can carry")]
    Token,
    /// The authorities to trust cannot be read.
    #[error("{0}")]
    Authorities(FileError),
    /// TLS could not be set up.
    #[error("TLS could not be set up: {}", causes(.0))]
    Setup(#[source] reqwest::Error),
    /// Nobody listens there.
    #[error("no server answers at {url}: {}", causes(.source))]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The line broke while something was under way.
    #[error("the connection to {url} broke: {}", causes(.source))]
    Broken {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The line ended before everything had been answered.
    #[error("{url} ended its answer early")]
    Ended {
        /// Where.
        url: String,
    },
    /// Not a byte for too long.
    #[error("{url} has been silent for {} s", .silence.as_secs())]
    Silent {
        /// Where.
        url: String,
        /// For how long.
        silence: Duration,
    },
    /// The server refused.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// An answer that no Tidewire server gives.
    #[error("{url} answered {status}, but not as a Tidewire server does")]
    Foreign {
        /// Where.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// An answer that breaks the contract.
    #[error("the server's answer breaks the contract: {0}")]
    Contract(String),
    /// Trying again went on for too long.
    #[error("tried again for {} s in vain: {last}", .after.as_secs())]
    GaveUp {
        /// For how long.
        after: Duration,
        /// What went wrong last.
        #[source]
        last: Box<Error>,
    },
}

/// What follows from a failed attempt.
#[derive(Debug)]
pub(super) struct Failure {
    /// What went wrong.
    pub(super) error: Error,
    /// Whether the same request may succeed later.
    pub(super) passes: bool,
    /// The server's wish when.
    pub(super) retry_after: Option<Duration>,
}

impl Failure {
    pub(super) fn lasting(error: Error) -> Self {
        Self {
            error,
            passes: false,
            retry_after: None,
        }
    }

    /// The server broke the contract.
    pub(super) fn contract(what: impl Into<String>) -> Self {
        Self::lasting(Error::Contract(what.into()))
    }

    pub(super) fn passing(error: Error) -> Self {
        Self {
            error,
            passes: true,
            retry_after: None,
        }
    }
}

/// The chain of causes, without the URL (which the caller names, less its query).
fn causes(error: &reqwest::Error) -> String {
    let mut text = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(err) = cause {
        let this = err.to_string();
        // hyper repeats itself on the way down: the last word says it best.
        if !this.is_empty() {
            text = this;
        }
        cause = err.source();
    }
    if text.is_empty() {
        "no cause given".to_owned()
    } else {
        text
    }
}
