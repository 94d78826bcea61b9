//! Results on stdout, as long as somebody reads them.

use std::io;

use tokio::io::{AsyncWriteExt as _, Stdout};

use super::advise::Advise as _;

/// What to do about a stdout that cannot be written.
const ADVICE: &str = "Check where stdout leads (a full disk?), and run this again.";

/// Standard output.
#[derive(Debug)]
pub struct Output {
    stdout: Stdout,
    is_left: bool,
}

impl Output {
    /// The process's own.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stdout: tokio::io::stdout(),
            is_left: false,
        }
    }

    /// Writes and flushes. False if the reader has left, which is no error: `head` does so.
    ///
    /// # Errors
    /// If it cannot be written for another reason.
    pub async fn write(&mut self, text: &str) -> anyhow::Result<bool> {
        if self.is_left {
            return Ok(false);
        }
        let written = match self.stdout.write_all(text.as_bytes()).await {
            Ok(()) => self.stdout.flush().await,
            err => err,
        };
        match written {
            Err(err) if err.kind() == io::ErrorKind::BrokenPipe => self.is_left = true,
            other => other.or_advise("stdout cannot be written", ADVICE)?,
        }
        Ok(!self.is_left)
    }
}
