//! `tidewire check`: looks at a running server from outside.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::remote::explain;
use super::validate;
use crate::access::Secret;
use crate::check::Depth;
use crate::client::trusting;

/// Settings of `tidewire check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server.
    #[arg(
        long,
        env = "TIDEWIRE_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL"
    )]
    pub url: String,

    /// How much to check, each by name: `quick` (10 s at most), `performance` (60 s) or `comprehensive` (180 s). Without it: whether
    /// the server answers, stores and delivers
    #[arg(value_name = "quick|performance|comprehensive")]
    pub depth: Option<Depth>,

    /// A token that may read and write `check.*`; an administrator's, if what was written is to be erased.
    #[arg(
        long,
        env = "TIDEWIRE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<Secret>,

    /// PEM file with the authorities that may have certified the server, in place of the machine's.
    #[arg(long, env = "TIDEWIRE_CA_FILE", value_name = "PATH")]
    pub ca_file: Option<PathBuf>,

    /// Only whether it is ready; stores nothing. For health checks.
    #[arg(long, conflicts_with = "depth")]
    pub ready: bool,

    /// A token of another tenant, of which is checked that it sees nothing.
    #[arg(
        long,
        env = "TIDEWIRE_OTHER_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub other_token: Option<Secret>,

    /// Has the server check itself, in tenants that are there for that alone (for operators).
    #[arg(long, requires = "depth", conflicts_with = "other_token")]
    pub by_server: bool,

    /// The report as JSON on stdout; progress goes to stderr.
    #[arg(long, requires = "depth")]
    pub json: bool,
}

/// How long each answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the checks, a line each.
///
/// # Errors
/// If one fails.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(depth) = args.depth {
        return validate::run(&args, depth).await;
    }
    let server = Server::new(&args)?;
    step("it is alive", server.get("/livez").await)?;
    step("it reads its log", server.get("/readyz").await)?;
    if args.ready {
        return Ok(());
    }
    let stored = step("it stores an event", server.store().await)?;
    step("it delivers it", server.read_back(&stored, &args).await)?;
    step(
        "a retry stores nothing twice",
        server.store_again(&stored).await,
    )?;
    Ok(())
}

fn step<T>(what: &str, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
    match &outcome {
        Ok(_) => println!("ok    {what}"),
        Err(_) => println!("FAIL  {what}"),
    }
    outcome
}

struct Stored {
    event: Value,
    cursor: String,
}

struct Server {
    url: String,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Server {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder().timeout(PATIENCE);
        let http = trusting(builder, args.ca_file.as_deref())
            .map_err(explain)?
            .build()?;
        Ok(Self {
            url: args.url.trim_end_matches('/').to_owned(),
            token: args.token.clone(),
            http,
        })
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> anyhow::Result<(reqwest::StatusCode, Value)> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.reveal()),
            None => request,
        };
        let response = request
            .send()
            .await
            .map_err(reqwest::Error::without_url)
            .with_context(|| format!("no answer from {}: is it running? Start it with script/server, or name another with --url (and an authority of your own with --ca-file)", self.url))?;
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let (status, body) = self
            .send(self.http.get(format!("{}{path}", self.url)))
            .await?;
        ensure!(
            status.is_success(),
            "{path} answered {status}: {}",
            detail(&body)
        );
        Ok(body)
    }

    async fn post(&self, event: &Value) -> anyhow::Result<Value> {
        let (status, body) = self
            .send(
                self.http
                    .post(format!("{}/v1/events", self.url))
                    .json(event),
            )
            .await?;
        ensure!(
            status.is_success(),
            "POST /v1/events answered {status}: {}",
            detail(&body)
        );
        body.pointer("/events/0")
            .cloned()
            .context("the answer names no event")
    }

    async fn store(&self) -> anyhow::Result<Stored> {
        let id = uuid::Uuid::now_v7().to_string();
        let event = json!({"id": id, "topic": "check.event.stored", "data": {"check": id}});
        let answer = self.post(&event).await?;
        let cursor = answer
            .get("cursor")
            .and_then(Value::as_str)
            .context("the answer has no cursor")?
            .to_owned();
        Ok(Stored { event, cursor })
    }

    async fn read_back(&self, stored: &Stored, args: &Args) -> anyhow::Result<()> {
        let Stored { event, cursor } = stored;
        let mut after = "earliest".to_owned();
        let since = "since=1970-01-01T00:00:00Z";
        loop {
            let from = if after == "earliest" {
                since.to_owned()
            } else {
                format!("after={after}")
            };
            let page = self
                .get(&format!(
                    "/v1/events?topics=check.event.*&{from}&at_least={cursor}&limit=1000"
                ))
                .await?;
            let events = page
                .get("events")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            if events
                .iter()
                .any(|one| one.get("id") == event.get("id") && one.get("data") == event.get("data"))
            {
                return Ok(());
            }
            if page.get("has_more") != Some(&Value::Bool(true)) {
                bail!(
                    "the event that {} has acknowledged is not in its log",
                    args.url
                );
            }
            page.get("cursor")
                .and_then(Value::as_str)
                .context("the page has no cursor")?
                .clone_into(&mut after);
        }
    }

    async fn store_again(&self, stored: &Stored) -> anyhow::Result<()> {
        let answer = self.post(&stored.event).await?;
        let is_same = answer.get("cursor").and_then(Value::as_str) == Some(&stored.cursor);
        ensure!(
            is_same && answer.get("duplicate") == Some(&Value::Bool(true)),
            "the same id was stored twice"
        );
        Ok(())
    }
}

fn detail(body: &Value) -> &str {
    body.get("detail")
        .and_then(Value::as_str)
        .unwrap_or("no reason given")
}
