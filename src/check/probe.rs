//! What every check uses: the run's topics and events, writing, reading, and cleaning up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::flaw::Flaw;
use super::list::Depth;
use super::performance::Load;
use super::report::Figures;
use super::run::Plan;
use crate::client::exchange::Content;
use crate::client::{Client, Exchange, pause};

/// What all runs write.
const OWN: &str = "check.*";
/// For how long reserved tenants keep what their log says of itself: the server allows no less.
const OWN_LOG_DAYS: i32 = 365;
/// Events of one page.
const PAGE: &str = "1000";
/// How long the server may take to say whose log it is.
const TENANT_WAIT: Duration = Duration::from_secs(2);
/// Between two requests of an erasure that takes long.
const AGAIN: Duration = Duration::from_millis(200);

/// A run, as its checks see it.
#[derive(Debug)]
pub(super) struct Probe {
    /// The credential in whose tenant it runs.
    pub(super) client: Client,
    /// That of another tenant.
    pub(super) other: Option<Client>,
    pub(super) depth: Depth,
    pub(super) load: Load,
    is_reserved: bool,
    run: String,
    tenant: OnceCell<String>,
    stop: CancellationToken,
    /// Where each tenant's log ended before.
    began: OnceCell<Vec<String>>,
    /// In whose tenants a rule of retention was set for this run.
    ruled: Mutex<Vec<Client>>,
}

impl Probe {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            client: plan.client.clone(),
            other: plan.other.clone(),
            depth: plan.depth,
            load: plan.load,
            is_reserved: plan.is_reserved,
            run: uuid::Uuid::now_v7().simple().to_string(),
            tenant: OnceCell::new(),
            stop: plan.stop.clone(),
            began: OnceCell::new(),
            ruled: Mutex::default(),
        }
    }

    /// Its name, a segment of its topics.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Whose log it writes into; empty if the server does not say.
    pub(super) async fn tenant(&self) -> String {
        let asked = self.tenant.get_or_try_init(|| tenant_of(&self.client));
        match tokio::time::timeout(TENANT_WAIT, asked).await {
            Ok(Ok(tenant)) => tenant.clone(),
            _ => String::new(),
        }
    }

    /// `check.<run>.<name>`.
    pub(super) fn topic(&self, name: &str) -> String {
        format!("check.{}.{name}", self.run)
    }

    /// What all events are about.
    pub(super) fn subject(&self) -> String {
        format!("check-{}", self.run)
    }

    /// The id of the nth event of a check.
    pub(super) fn id(&self, name: &str, n: usize) -> String {
        format!("{}-{name}-{n}", self.run)
    }

    /// The nth event of a check. Its data holds what encodings like to break.
    pub(super) fn event(&self, name: &str, n: usize) -> Value {
        json!({
            "id": self.id(name, n),
            "topic": self.topic(name),
            "subject": self.subject(),
            "gdpr": { "consent": true, "basis": "contract" },
            "data": { "n": n, "text": "tide \u{00e9} \u{1f30a} \"\\\n", "list": [null, true, 0.5, -1, {}] },
        })
    }

    /// The first `count` of them.
    pub(super) fn events(&self, name: &str, count: usize) -> Vec<Value> {
        (0..count).map(|n| self.event(name, n)).collect()
    }

    /// Sends a body to be appended.
    pub(super) async fn post(&self, content: Content<'_>) -> Result<Exchange, Flaw> {
        let path = ["v1", "events"];
        Ok(self.client.try_post(&path, Some(content)).await?)
    }

    /// Sends events as an array.
    pub(super) async fn send(&self, events: &[Value]) -> Result<Exchange, Flaw> {
        let body = Value::from(events.to_vec()).to_string();
        self.post(("application/json", body.into_bytes())).await
    }

    /// Stores events; the cursor of each.
    pub(super) async fn append(&self, events: &[Value]) -> Result<Vec<String>, Flaw> {
        let answer = self.send(events).await?;
        if answer.status != 201 {
            return Err(Flaw::answer("an append", "201", &answer));
        }
        let answer = answer.json();
        let stored = answer.get("events").and_then(Value::as_array);
        let stored = stored.map(Vec::as_slice).unwrap_or_default();
        let cursors: Vec<String> = stored
            .iter()
            .zip(events)
            .filter(|(stored, event)| stored.get("id") == event.get("id"))
            .filter_map(|(stored, _)| Some(stored.get("cursor")?.as_str()?.to_owned()))
            .collect();
        if cursors.len() == events.len() {
            Ok(cursors)
        } else {
            Err(contract(
                "an append's answer does not name its events in order, each with its cursor",
            ))
        }
    }

    /// The place at which the log ends now.
    pub(super) async fn end(&self) -> Result<String, Flaw> {
        let (_, cursor, _) = self.page(&[("after", "latest"), ("limit", "1")]).await?;
        Ok(cursor)
    }

    /// One page of the run's events: events, cursor, whether there are more.
    pub(super) async fn page(
        &self,
        query: &[(&str, &str)],
    ) -> Result<(Vec<Value>, String, bool), Flaw> {
        page(&self.client, &self.topic("*"), query).await
    }

    /// All events of a topic after a cursor, read until `until` can be read.
    pub(super) async fn read(
        &self,
        name: &str,
        after: &str,
        until: Option<&str>,
    ) -> Result<Vec<Value>, Flaw> {
        let (mut all, mut from, mut least) = (Vec::new(), after.to_owned(), until);
        loop {
            let mut query = vec![("after", from.as_str()), ("limit", PAGE)];
            query.extend(least.take().map(|cursor| ("at_least", cursor)));
            let (events, cursor, has_more) = page(&self.client, &self.topic(name), &query).await?;
            all.extend(events);
            if !has_more {
                return Ok(all);
            }
            from = cursor;
        }
    }

    /// Sees to it that what is written goes by itself, should nobody be left to erase it: by a rule of retention, where the credential
    /// may set one.
    pub(super) async fn prepare(&self) -> Result<(), Flaw> {
        // From here on what is left is looked for in the end.
        let mut ends = Vec::new();
        for client in self.clients() {
            let latest = [("after", "latest"), ("limit", "1")];
            ends.push(page(client, &self.topic("*"), &latest).await?.1);
        }
        let _ = self.began.set(ends);
        for client in self.clients() {
            // Whoever has a rule of their own knows better.
            if !self.is_reserved && has_rule(client).await? != Some(false) {
                continue;
            }
            // Nobody else can set a rule for a reserved tenant: without the second, what its log says of itself would be kept for ever,
            // and with it each chunk of everybody's in which a run has been.
            let rules: &[(&str, i32)] = if self.is_reserved {
                &[("*", 1), ("tidewire.*", OWN_LOG_DAYS)]
            } else {
                &[(OWN, 1)]
            };
            for (pattern, days) in rules {
                let path = ["v1", "retention", pattern];
                let answer = client.try_put(&path, &json!({ "days": days })).await?;
                match answer.status {
                    200 if self.is_reserved => {}
                    200 => self.ruled().push(client.clone()),
                    // It may not, or the tenant has as many as it may have.
                    403 | 409 if !self.is_reserved => {}
                    _ => return Err(Flaw::answer("a rule of retention", "200", &answer)),
                }
            }
        }
        Ok(())
    }

    fn ruled(&self) -> MutexGuard<'_, Vec<Client>> {
        self.ruled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn clients(&self) -> impl Iterator<Item = &Client> {
        std::iter::once(&self.client).chain(&self.other)
    }

    /// Takes back the rules that were set for this run.
    async fn unrule(&self) -> Result<(), Flaw> {
        let ruled = std::mem::take(&mut *self.ruled());
        for client in ruled {
            client.try_delete(&["v1", "retention", OWN]).await?;
        }
        Ok(())
    }

    /// Erases what was written, if the credential may.
    pub(super) async fn clean_up(&self, figures: &mut Figures) -> Result<(), Flaw> {
        let (mut erased, mut left) = (0_u64, Vec::new());
        for (nth, client) in self.clients().enumerate() {
            match self.erase(client).await? {
                Some(events) => {
                    erased = erased.saturating_add(events);
                    self.is_erased(nth, client).await?;
                }
                None => left.push(tenant_of(client).await?),
            }
        }
        figures.insert("erased".to_owned(), erased.into());
        if left.is_empty() {
            return self.unrule().await;
        }
        Err(Flaw::Skipped(format!(
            "erasing takes an administrator who may write *: events of check.{}.* stay in tenant {} until retention takes them",
            self.run,
            left.join(" and ")
        )))
    }

    /// That nothing of it can be read any more.
    async fn is_erased(&self, nth: usize, client: &Client) -> Result<(), Flaw> {
        let Some(began) = self.began.get().and_then(|ends| ends.get(nth)) else {
            return Ok(());
        };
        let query = [("after", began.as_str()), ("limit", PAGE)];
        let (events, ..) = page(client, &self.topic("*"), &query).await?;
        if events
            .iter()
            .all(|event| event.get("erased_at").is_some() && event.get("data").is_none())
        {
            return Ok(());
        }
        Err(Flaw::failed(
            "what was written and erased can still be read",
            "Does a cache in between answer? If not, keep the server's log and report this.",
        ))
    }

    /// How many were erased; none if the credential may not.
    async fn erase(&self, client: &Client) -> Result<Option<u64>, Flaw> {
        let (subject, mut events) = (self.subject(), 0_u64);
        loop {
            let answer = client.try_delete(&["v1", "subjects", &subject]).await?;
            let count = answer.json().get("events").and_then(Value::as_u64);
            events = events.saturating_add(count.unwrap_or_default());
            match answer.status {
                // Of a run that was interrupted something may have been under way.
                200 if self.stop.is_cancelled() && count.is_some_and(|count| count > 0) => {}
                200 => return Ok(Some(events)),
                202 => pause(AGAIN).await,
                403 => return Ok(None),
                _ => {
                    return Err(Flaw::answer(
                        "the erasure of what was written",
                        "200",
                        &answer,
                    ));
                }
            }
        }
    }
}

/// Whether the tenant has a rule of its own for what checks write; none if the credential may not know.
async fn has_rule(client: &Client) -> Result<Option<bool>, Flaw> {
    let answer = client.try_get(&["v1", "retention"], &[]).await?;
    let document = answer.json();
    match (
        answer.status,
        document.get("rules").and_then(Value::as_array),
    ) {
        (200, Some(rules)) => {
            let is_own = |rule: &Value| rule.get("pattern") == Some(&json!(OWN));
            Ok(Some(rules.iter().any(is_own)))
        }
        (403, _) => Ok(None),
        _ => Err(Flaw::answer("the rules of retention", "200", &answer)),
    }
}

/// Whose credential it is.
pub(super) async fn tenant_of(client: &Client) -> Result<String, Flaw> {
    let welcome = client.socket().await?.next().await?;
    let tenant = welcome.get("tenant").and_then(Value::as_str);
    tenant
        .map(str::to_owned)
        .ok_or_else(|| contract("the WebSocket's welcome does not say whose log it is"))
}

/// One page of some topics.
pub(super) async fn page(
    client: &Client,
    topics: &str,
    query: &[(&str, &str)],
) -> Result<(Vec<Value>, String, bool), Flaw> {
    let mut all = vec![("topics", topics)];
    all.extend(query);
    let answer = client.try_get(&["v1", "events"], &all).await?;
    if answer.status != 200 {
        return Err(Flaw::answer("a page", "200", &answer));
    }
    let page = answer.json();
    let events = page.get("events").and_then(Value::as_array);
    let cursor = page.get("cursor").and_then(Value::as_str);
    match (events, cursor) {
        (Some(events), Some(cursor)) => Ok((
            events.clone(),
            cursor.to_owned(),
            page.get("has_more") == Some(&Value::Bool(true)),
        )),
        _ => Err(contract("a page without events or without its cursor")),
    }
}

/// A server that does not answer as the contract says.
pub(super) fn contract(cause: &str) -> Flaw {
    Flaw::failed(
        cause,
        "Do the versions of the server and of this program fit? Does a proxy in between change answers?",
    )
}

/// The ids of events.
pub(super) fn ids(events: &[Value]) -> impl Iterator<Item = &str> {
    events.iter().filter_map(|event| event.get("id")?.as_str())
}
