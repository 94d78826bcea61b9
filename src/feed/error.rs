//! Why a reader cannot go on.

use std::sync::Arc;
use std::time::Duration;

use crate::log::ReadError;

/// Why a reader cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FollowError {
    /// As the log says.
    #[error(transparent)]
    Read(#[from] Arc<ReadError>),
    /// It fell behind the window and asked to be disconnected then.
    #[error("this reader fell too far behind")]
    Lagging,
    /// It asks for history more often than it may. Its place is as before.
    #[error("history is asked for too often")]
    TooOften {
        /// When it may.
        wait: Duration,
    },
}

impl FollowError {
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Read(error) if matches!(error.as_ref(), ReadError::Expired { .. }))
    }
}

impl From<ReadError> for FollowError {
    fn from(error: ReadError) -> Self {
        Self::Read(Arc::new(error))
    }
}
