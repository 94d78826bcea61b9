//! Sending many lines with progress: what `import` and `demo` share.

use futures_util::Stream;

use super::interrupt::Interrupt;
use super::progress::{Progress, Tally};
use super::remote::explain;
use crate::client::{Answer, Client, Line, Sending};

/// How sending came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every line was answered.
    Done,
    /// Ctrl-C.
    Interrupted,
    /// A line was refused, and the user wanted to stop at the first.
    Refused,
}

/// Sends the lines and shows how far they have come; refused ones are reported with number and reason.
///
/// # Errors
/// If the server cannot be reached or refuses the request as a whole; what had been stored so far is said before.
pub async fn deliver(
    client: &Client,
    lines: impl Stream<Item = Line> + Unpin,
    progress: &mut Progress,
    is_strict: bool,
) -> anyhow::Result<(Tally, End)> {
    let mut interrupt = Interrupt::new()?;
    let mut appender = client.append(lines);
    let mut tally = Tally::default();
    progress.set(0, tally);
    loop {
        // Dropping what is under way is safe: sent again, it is a duplicate.
        let sending = match interrupt.or(appender.next()).await {
            None => return Ok((tally, End::Interrupted)),
            Some(Ok(None)) => return Ok((tally, End::Done)),
            Some(Ok(Some(sending))) => sending,
            Some(Err(err)) => {
                if tally != Tally::default() {
                    progress.say(&format!("so far: {tally}"));
                }
                return Err(explain(err));
            }
        };
        match sending {
            Sending::Retrying { why, delay } => {
                progress.say(&format!(
                    "{why}; trying again in {:.1} s",
                    delay.as_secs_f32()
                ));
            }
            Sending::Answered(answers) => {
                for answer in &answers {
                    count(answer, &mut tally, progress);
                    if is_strict && answer.result.is_err() {
                        return Ok((tally, End::Refused));
                    }
                }
                let end = answers.last().map_or(0, |answer| answer.line.end);
                progress.set(end, tally);
            }
        }
    }
}

fn count(answer: &Answer, tally: &mut Tally, progress: &Progress) {
    let counted = match &answer.result {
        Ok(stored) if stored.duplicate => &mut tally.duplicates,
        Ok(_) => &mut tally.stored,
        Err(problem) => {
            progress.say(&format!("line {}: {problem}", answer.line.number));
            &mut tally.refused
        }
    };
    *counted = counted.saturating_add(1);
}
