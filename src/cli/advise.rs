//! Errors that end in what to do.

use std::fmt::Display;

/// Turns an error into a sentence about what failed and why, and one about what to do.
pub trait Advise<T> {
    /// `what`: `error`. `advice`
    ///
    /// # Errors
    /// If this is one.
    fn or_advise(self, what: impl Display, advice: impl Display) -> anyhow::Result<T>;
}

impl<T, E: Display> Advise<T> for Result<T, E> {
    fn or_advise(self, what: impl Display, advice: impl Display) -> anyhow::Result<T> {
        self.map_err(|err| anyhow::anyhow!("{what}: {err}. {advice}"))
    }
}
