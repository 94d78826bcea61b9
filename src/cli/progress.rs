//! How far a long command has come, on stderr: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

/// Between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What has become of the lines so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Stored now.
    pub stored: u64,
    /// Stored before.
    pub duplicates: u64,
    /// Not stored.
    pub refused: u64,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "stored {}, duplicates {}, refused {}",
            self.stored, self.duplicates, self.refused
        )
    }
}

/// A display of progress; gone when dropped.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Instant,
    said: Instant,
    total: Option<u64>,
}

impl Progress {
    /// Of an input of `total` bytes, where that is known.
    #[must_use]
    pub fn new(total: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| match total {
            Some(total) => ProgressBar::new(total)
                .with_style(style("{bar:30} {bytes}/{total_bytes} · {msg} · {eta} left")),
            None => ProgressBar::new_spinner().with_style(style("{spinner} {msg}")),
        });
        let now = Instant::now();
        Self {
            bar,
            start: now,
            said: now,
            total,
        }
    }

    /// Everything up to `position` bytes of the input has been answered.
    pub fn set(&mut self, position: u64, tally: Tally) {
        if let Some(bar) = &self.bar {
            bar.set_message(self.message(tally));
            bar.set_position(position);
        } else if self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            let percent = self.total.filter(|total| *total > 0).map(|total| {
                let percent = position.saturating_mul(100).checked_div(total);
                format!("{} % · ", percent.unwrap_or_default())
            });
            eprintln!("{}{}", percent.unwrap_or_default(), self.message(tally));
        }
    }

    /// Says something without tearing the bar.
    pub fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    fn message(&self, tally: Tally) -> String {
        let events = tally.stored.saturating_add(tally.duplicates);
        let ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = events
            .saturating_mul(1_000)
            .checked_div(ms)
            .unwrap_or_default();
        format!("{tally} · {}/s", HumanCount(rate))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
