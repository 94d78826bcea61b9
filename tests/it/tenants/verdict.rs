//! What readers of each tenant saw: all of its own, once, and nothing else.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::load::login;
use crate::support::reader::{Transport, Wanted, read};
use crate::support::token;
use crate::support::{Api, Server, TestDb};

/// Beyond this the other tenant's are not listed one by one.
const LISTED_MAX: usize = 5;

/// What all have seen.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Events that readers were given.
    pub looked_at: usize,
    /// Of another tenant.
    crossed: usize,
    /// Some of them.
    examples: Vec<String>,
    /// Readers to whom something was missing, or came twice.
    incomplete: Vec<String>,
    /// Writes that were not stored as new.
    pub refused: Vec<String>,
}

/// What one reader has seen.
pub struct Seen {
    who: String,
    tenant: &'static str,
    wanted: usize,
    ids: HashSet<String>,
    count: usize,
    crossed: Vec<String>,
}

impl Seen {
    fn new(who: &str, tenant: &'static str, wanted: usize) -> Self {
        Self {
            who: format!("{who} of {tenant}"),
            tenant,
            wanted,
            ids: HashSet::new(),
            count: 0,
            crossed: Vec::new(),
        }
    }

    fn look(&mut self, event: &Value) {
        self.count += 1;
        if event["data"]["of"] == self.tenant {
            self.ids
                .insert(event["id"].as_str().unwrap_or_default().to_owned());
        } else {
            self.crossed.push(event.to_string());
        }
    }

    fn has_all(&self) -> bool {
        self.count >= self.wanted
    }
}

impl Verdict {
    /// Adds what a reader has seen.
    pub fn take(&mut self, seen: Seen) {
        self.looked_at += seen.count;
        self.crossed += seen.crossed.len();
        let room = LISTED_MAX.saturating_sub(self.examples.len());
        self.examples.extend(
            seen.crossed
                .into_iter()
                .take(room)
                .map(|event| format!("{}: {event}", seen.who)),
        );
        if seen.ids.len() != seen.wanted || seen.count != seen.wanted {
            self.incomplete.push(format!(
                "{}: {} events, {} ids, {} wanted",
                seen.who,
                seen.count,
                seen.ids.len(),
                seen.wanted
            ));
        }
    }

    /// Whether everybody saw their own and nothing else, and every write was new.
    pub fn is_clean(&self) -> bool {
        self.crossed == 0 && self.incomplete.is_empty() && self.refused.is_empty()
    }

    /// How many events came to another tenant.
    pub const fn crossed(&self) -> usize {
        self.crossed
    }

    /// Panics unless it is clean.
    pub fn assert_clean(&self) {
        let refused: Vec<_> = self.refused.iter().take(LISTED_MAX).collect();
        assert!(
            self.is_clean(),
            "{} crossed: {:#?}; {:#?}; refused {refused:#?}",
            self.crossed,
            self.examples,
            self.incomplete
        );
    }

    /// Reads all of a tenant's again, on every transport, in SQL, and through what errors say.
    pub async fn read_back(
        &mut self,
        db: &TestDb,
        server: &Server,
        tenant: &'static str,
        wanted: usize,
    ) {
        let api = server.api.with_token(&token::token(tenant));
        let wants = |topics, subjects| Wanted {
            topics,
            subjects,
            after: "earliest".into(),
        };
        let mut reads = vec![
            (Transport::Pages, wants("deal.*", ""), wanted),
            (Transport::WsMsgpack, wants("deal.*", ""), wanted),
        ];
        for transport in Transport::ALL {
            reads.push((
                transport,
                wants("deal.stage.*", "s-7,s-8,s-9,s-10,s-11"),
                wanted / 10,
            ));
        }
        for (transport, which, wanted) in reads {
            let mut seen = Seen::new(
                &format!("{transport:?} for {:?}", which.subjects),
                tenant,
                wanted,
            );
            for event in &read(&api, transport, &which).await.events {
                seen.look(event);
            }
            self.take(seen);
        }
        self.ask_in_sql(db, tenant, wanted).await;
        self.ask_for_errors(&api, tenant).await;
        self.ask_for_metrics(&api, tenant).await;
    }

    async fn ask_in_sql(&mut self, db: &TestDb, tenant: &'static str, wanted: usize) {
        let role = login(db, tenant, "tidewire_analyst").await;
        let client = db.connect_as(&role, &role).await;
        let mut seen = Seen::new("SQL", tenant, wanted);
        for row in client
            .query("SELECT id, data FROM tidewire.my_events", &[])
            .await
            .unwrap()
        {
            seen.look(&json!({"id": row.get::<_, &str>(0), "data": row.get::<_, Value>(1)}));
        }
        self.take(seen);
    }

    /// An id that both have used, with other content; a subject's newest event; the status; the audit.
    async fn ask_for_errors(&mut self, api: &Api, tenant: &str) {
        let other = if tenant == "acme" { "beta" } else { "acme" };
        let conflict = json!({"topic": "deal.stage.t0", "id": "frame-0", "subject": "s-0", "data": "other content"});
        let expected = json!({"topic": "deal.stage.t0", "subject": "s-0", "data": {"of": tenant}, "expect": "none"});
        let mut said = Vec::new();
        for event in [conflict, expected] {
            let (status, problem) = api.try_append(&event).await;
            if status != 422 && status != 409 {
                // Of two tenants that share their ids one may have stored none of a subject's.
                self.examples
                    .push(format!("{tenant} is no more in conflict: {problem}"));
            }
            said.push(problem);
        }
        // The cursor that a conflict names is of an event of its own.
        let current = said[1]["current_cursor"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let newest = read(
            api,
            Transport::Pages,
            &Wanted {
                topics: "deal.*",
                subjects: "s-0",
                after: "earliest".into(),
            },
        )
        .await;
        let own = newest
            .events
            .last()
            .map(|event| event["cursor"].as_str().unwrap_or_default().to_owned());
        if own.as_deref() != Some(current.as_str()) {
            self.examples.push(format!(
                "{tenant}'s conflict names {current}, its own newest is {own:?}"
            ));
            self.crossed += 1;
        }
        said.push(api.get("/v1/status").await);
        said.push(
            api.get("/v1/events?topics=tidewire.audit.*&limit=1000")
                .await,
        );
        for answer in said {
            if answer.to_string().contains(other) {
                self.crossed += 1;
                self.examples
                    .push(format!("{tenant} was told of {other}: {answer:.300}"));
            }
        }
    }

    /// What all administrators may read names nobody: no tenant, its own neither, no topic, subject or id of theirs.
    async fn ask_for_metrics(&mut self, api: &Api, tenant: &str) {
        let text = crate::metrics::text(api).await;
        assert!(text.contains("tidewire_"), "{text:.300}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let named = ["acme", "beta", "deal.", "s-", "frame-"].map(|name| line.contains(name));
            if named.contains(&true) {
                self.crossed += 1;
                self.examples
                    .push(format!("{tenant} reads of somebody in the metrics: {line}"));
            }
        }
    }
}

/// Follows from the present until all that is wanted has come.
pub async fn follow_socket(
    api: Api,
    tenant: &'static str,
    (wanted, patience): (usize, Duration),
    topics: &[&str],
    subjects: &[&str],
) -> impl Future<Output = Seen> + use<> {
    let mut ws = api.ws().await;
    ws.send(json!({"type": "subscribe", "id": "s", "topics": topics, "subjects": subjects, "after": "latest"})).await;
    ws.until("subscribed").await;
    let mut seen = Seen::new(&format!("a socket for {subjects:?}"), tenant, wanted);
    async move {
        // From one event to the next: how long it takes to write them all is another matter.
        while let Ok(Ok(Some(frame))) = tokio::time::timeout(patience, ws.until_events()).await {
            let events = frame["events"].as_array().into_iter().flatten();
            events.for_each(|event| seen.look(event));
            if seen.has_all() {
                break;
            }
        }
        seen
    }
}

/// The same by server-sent events.
pub async fn follow_stream(
    api: Api,
    tenant: &'static str,
    (wanted, patience): (usize, Duration),
) -> impl Future<Output = Seen> + use<> {
    let mut stream = api.sse("after=latest&topics=deal.*", None).await.unwrap();
    stream.next().await.unwrap();
    let mut seen = Seen::new("a stream", tenant, wanted);
    async move {
        while let Ok(Ok(Some((events, _)))) = tokio::time::timeout(patience, stream.events()).await
        {
            for event in &events {
                seen.look(event);
            }
            if seen.has_all() {
                break;
            }
        }
        seen
    }
}
