//! Which server a command talks to, and what to do when that fails.

use std::path::PathBuf;

use crate::client::{Client, Error, Problem, Secret};

/// Arguments of every command that needs a running server.
#[derive(Debug, Clone, clap::Args)]
pub struct Remote {
    /// Address of the server
    #[arg(
        long,
        env = "TIDEWIRE_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,
    /// Token: a JWT or an API key (a development server needs none). The variable keeps it out of the process list
    #[arg(
        long,
        env = "TIDEWIRE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<Secret>,
    /// PEM file with the authorities that may have certified the server, in place of the machine's
    #[arg(long, env = "TIDEWIRE_CA_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,
}

impl Remote {
    /// A client of that server.
    ///
    /// # Errors
    /// If address, token or authorities cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        let authorities = self.ca_file.as_deref();
        Client::trusting(&self.url, self.token.as_ref(), authorities).map_err(explain)
    }
}

/// An error and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{}. {}", .error.to_string().trim_end_matches('.'), advice_on(.error))]
struct Explained {
    error: Error,
}

/// The error, ending in what to do about it.
#[must_use]
pub fn explain(error: Error) -> anyhow::Error {
    Explained { error }.into()
}

fn advice_on(error: &Error) -> String {
    match error {
        Error::Address(_) => {
            "Give the server's address with --url or TIDEWIRE_URL, for example --url http://127.0.0.1:8080.".to_owned()
        }
        Error::Token => {
            "Copy the token again, without line breaks, into TIDEWIRE_TOKEN or --token.".to_owned()
        }
        Error::Authorities(_) => "See --ca-file (TIDEWIRE_CA_FILE).".to_owned(),
        Error::Setup(_) => {
            "Install the machine's root certificates (on Debian: apt install ca-certificates) and run this again."
                .to_owned()
        }
        Error::Unreachable { url, .. } if url.starts_with("https://") => {
            "Is it running, and is its certificate for this name? If an authority of your own has certified it, name that with --ca-file or TIDEWIRE_CA_FILE.".to_owned()
        }
        Error::Unreachable { .. } => {
            "Is it running? Start it with script/server, or name another with --url or TIDEWIRE_URL.".to_owned()
        }
        Error::Broken { .. } | Error::Ended { .. } | Error::Silent { .. } => {
            "Check the network and the server's log, and run this again.".to_owned()
        }
        Error::Refused(problem) => advice_on_problem(problem),
        Error::Foreign { status: 500.., .. } => {
            "Look into the log of the server, or of the proxy before it, and run this again.".to_owned()
        }
        Error::Foreign { .. } => {
            "Check --url: it must be the address of the server itself, without /v1/events.".to_owned()
        }
        Error::Contract(_) => {
            "Check that --url leads to a Tidewire server and that its version fits this program's (tidewire --version)."
                .to_owned()
        }
        Error::GaveUp { .. } => {
            "Look into the server's log (or ask GET /v1/status), and send what is left again: nothing is stored twice."
                .to_owned()
        }
    }
}

fn advice_on_problem(problem: &Problem) -> String {
    match (problem.status, problem.code()) {
        (401, _) => {
            "Give a valid token in TIDEWIRE_TOKEN or with --token; `tidewire token --help` says how to make one.".to_owned()
        }
        (403, "forbidden") => {
            "Use the credential of an administrator; `tidewire token --help` and `tidewire key --help` say how to make one.".to_owned()
        }
        (403, _) => {
            "Use a token whose read or write patterns cover these topics; `tidewire token --help` says how to make one."
                .to_owned()
        }
        (409, "cursor-unknown") => {
            "The cursor belongs to another log, or this one was restored from a backup: check --url, or remove the cursor file and begin with --after earliest or latest.".to_owned()
        }
        (410, _) => match earliest(problem) {
            Some(cursor) => format!(
                "Retention has removed events that were not read yet. Remove the cursor file and go on with what is left: --after {cursor}"
            ),
            None => "Retention has removed events that were not read yet. Remove the cursor file and go on with what is left: --after earliest.".to_owned(),
        },
        (404, "not-found") if !problem.detail.is_empty() && !problem.detail.contains("path") => {
            "Check the id; `tidewire key list` and `tidewire watch list` show those that there are.".to_owned()
        }
        (404 | 405, _) => {
            "Check --url: it must be the address of the server itself, without /v1/events.".to_owned()
        }
        (429 | 503, _) => "Wait a little and run this again.".to_owned(),
        (500.., _) => "Look into the server's log for this request.".to_owned(),
        _ => "Correct that and run this again; --help lists what each option takes.".to_owned(),
    }
}

/// The earliest cursor that can still be used, under whichever name it comes.
fn earliest(problem: &Problem) -> Option<&str> {
    ["earliest", "earliest_cursor", "cursor"]
        .iter()
        .find_map(|name| problem.more.get(*name)?.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do() {
        for status in [
            0, 400, 401, 403, 404, 409, 410, 413, 415, 422, 429, 500, 503,
        ] {
            let problem = Problem {
                status,
                title: "Title".to_owned(),
                detail: "It is so.".to_owned(),
                ..Problem::default()
            };
            let text = explain(Error::Refused(Box::new(problem))).to_string();
            assert!(text.starts_with("Title: It is so. "), "{text}");
            assert!(text.len() > "Title: It is so. ".len() + 20, "{text}");
        }
    }

    #[test]
    fn an_expired_cursor_names_the_earliest() {
        let text = r#"{"type":"/problems/cursor-expired","status":410,"earliest":"00a"}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        let text = explain(Error::Refused(Box::new(problem))).to_string();
        assert!(text.ends_with("--after 00a"), "{text}");
    }
}
