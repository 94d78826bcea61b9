//! `tidewire append`: one event from the flags, or NDJSON from stdin; an NDJSON answer for each on stdout.

use std::io::{self, IsTerminal as _};

use anyhow::bail;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Serialize;
use serde_json::value::RawValue;

use super::advise::Advise as _;
use super::lines::{Input, Lines};
use super::output::Output;
use super::remote::{Remote, explain};
use crate::client::{Answer, Line, Problem, Sending, Stored};

const HELP: &str = "\
Each event is answered by a line on stdout: {\"line\":1,\"id\":\"…\",\"cursor\":\"…\",\"duplicate\":false}, or \
{\"line\":2,\"error\":{…}}. Events without an id get one, so that a broken connection stores nothing twice. The exit \
code is 1 if any was refused.

Examples:
  tidewire append --topic deal.stage.updated --subject deal-7 --data '{\"stage\":\"won\"}'
  tidewire follow --after earliest --until-caught-up | tidewire append --url http://elsewhere:8080";

/// Write one event (--topic …), or NDJSON events from stdin.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct Args {
    #[command(flatten)]
    remote: Remote,
    /// Topic of the one event to write, such as deal.stage.updated; without it events come from stdin
    #[arg(long)]
    topic: Option<String>,
    /// What it is about, such as deal-7
    #[arg(long, requires = "topic")]
    subject: Option<String>,
    /// Its data: any JSON value
    #[arg(long, requires = "topic", value_name = "JSON")]
    data: Option<String>,
    /// Its id; writing the same id again stores nothing
    #[arg(long, requires = "topic")]
    id: Option<String>,
    /// Who says so; the token's name unless given
    #[arg(long, requires = "topic")]
    source: Option<String>,
    /// critical, high, normal or low
    #[arg(long, requires = "topic")]
    priority: Option<String>,
    /// When it happened, RFC 3339
    #[arg(long, requires = "topic", value_name = "TIME")]
    occurred_at: Option<String>,
    /// Only if the subject's newest event is this one: a cursor, or none
    #[arg(long, requires = "subject", value_name = "CURSOR|none")]
    expect: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If an event was refused, or the server cannot be reached.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.remote.client()?;
    let lines: Box<dyn Stream<Item = Line> + Unpin + Send> = if let Some(event) = args.event()? {
        Box::new(stream::iter([Line {
            number: 1,
            end: 0,
            event: Ok(event),
        }]))
    } else {
        if io::stdin().is_terminal() {
            eprintln!("Reading events from the terminal, one JSON object a line; Ctrl-D ends.");
        }
        Box::new(Lines::stdin()?.into_stream().map(line_of))
    };
    let mut appender = client.append(lines);
    let mut out = Output::new();
    let (mut count, mut refused) = (0_u64, 0_u64);
    while let Some(sending) = appender.next().await.map_err(explain)? {
        match sending {
            Sending::Retrying { why, delay } => {
                eprintln!("{why}; trying again in {:.1} s", delay.as_secs_f32());
            }
            Sending::Answered(answers) => {
                for answer in &answers {
                    count = count.saturating_add(1);
                    refused = refused.saturating_add(u64::from(answer.result.is_err()));
                }
                // A reader that has left is no reason to stop writing events.
                out.write(&text_of(&answers)?).await?;
            }
        }
    }
    if refused > 0 {
        bail!(
            "{refused} of {count} events were refused, for the reasons in the answers above. Correct them and send them again."
        );
    }
    Ok(())
}

fn line_of(input: Input) -> Line {
    Line {
        number: input.number,
        end: input.end,
        event: input.text.map_err(Problem::malformed),
    }
}

/// What the server answered, with the line's number in the whole input.
#[derive(Serialize)]
struct Printed<'a> {
    line: u64,
    #[serde(flatten)]
    stored: Option<&'a Stored>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Problem>,
}

fn text_of(answers: &[Answer]) -> anyhow::Result<String> {
    let mut text = String::new();
    for Answer { line, result } in answers {
        let printed = Printed {
            line: line.number,
            stored: result.as_ref().ok(),
            error: result.as_ref().err(),
        };
        text.push_str(&serde_json::to_string(&printed)?);
        text.push('\n');
    }
    Ok(text)
}

impl Args {
    /// The one event that the flags describe.
    fn event(&self) -> anyhow::Result<Option<String>> {
        let Some(topic) = &self.topic else {
            return Ok(None);
        };
        let mut event = serde_json::Map::new();
        event.insert("topic".to_owned(), topic.as_str().into());
        for (name, value) in [
            ("subject", &self.subject),
            ("id", &self.id),
            ("source", &self.source),
            ("priority", &self.priority),
            ("occurred_at", &self.occurred_at),
            ("expect", &self.expect),
        ] {
            if let Some(value) = value {
                event.insert(name.to_owned(), value.as_str().into());
            }
        }
        let mut text = serde_json::Value::Object(event).to_string();
        if let Some(data) = &self.data {
            let quoted = data.replace(['"', '\''], "");
            let data: Box<RawValue> = serde_json::from_str(data).or_advise(
                "--data is not JSON",
                format_args!(
                    "Quote it for the shell, and a text as JSON too: --data '\"{quoted}\"'"
                ),
            )?;
            // One line, whatever white space the shell passed on; the text of numbers stays.
            let data = data.get().replace(['\n', '\r'], " ");
            text.pop();
            text.push_str(",\"data\":");
            text.push_str(&data);
            text.push('}');
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    fn event(words: &[&str]) -> anyhow::Result<Option<String>> {
        let command = Args::augment_args(clap::Command::new("append").no_binary_name(true));
        Args::from_arg_matches(&command.try_get_matches_from(words)?)?.event()
    }

    #[test]
    fn flags_become_an_event() {
        let text = event(&[
            "--topic",
            "deal.stage.updated",
            "--subject",
            "deal-7",
            "--data",
            "{\"n\":\n1.10}",
        ]);
        let text = text.unwrap().unwrap();
        let parsed = crate::event::new_event::parse(&text, 1_000).unwrap();
        assert_eq!(parsed.subject.unwrap().as_str(), "deal-7");
        assert!(text.ends_with("\"data\":{\"n\": 1.10}}"), "{text}");
        assert_eq!(event(&[]).unwrap(), None);
        assert!(event(&["--subject", "x"]).is_err());
        let err = event(&["--topic", "a", "--data", "won"]).unwrap_err();
        assert!(err.to_string().contains("'\"won\"'"), "{err}");
    }
}
