//! What both tenants write, by every way, at the same time.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::verdict::{Verdict, follow_socket, follow_stream};
use crate::support::client::json_of;
use crate::support::token;
use crate::support::{Api, Server, TestDb};

pub const TENANTS: [&str; 2] = ["acme", "beta"];
/// Of each tenant, in parallel.
const UPLOADS: usize = 4;
/// Events of an array.
const ARRAY: usize = 100;
/// Events of a socket's frame.
const FRAME: usize = 50;

/// How much each tenant writes.
#[derive(Clone, Copy)]
pub struct Load {
    pub per_tenant: usize,
    /// How long a follower waits for the next of what is missing.
    pub patience: Duration,
}

/// The same for both tenants, but for whose it says it is.
fn event(tenant: &str, place: &str, number: usize) -> Value {
    json!({
        "topic": format!("deal.stage.t{}", number % 10),
        "subject": format!("s-{}", number % 50),
        "data": {"of": tenant, "place": place, "n": number},
    })
}

fn with_id(tenant: &str, place: &str, number: usize) -> Value {
    let mut event = event(tenant, place, number);
    event["id"] = json!(format!("{place}-{number}"));
    event
}

impl Load {
    /// Tenths of it: uploads, arrays, frames, SQL.
    fn parts(self) -> (usize, usize, usize, usize) {
        let tenth = self.per_tenant / 10;
        (
            tenth * 7,
            tenth * 2,
            tenth / 2,
            self.per_tenant - tenth * 9 - tenth / 2,
        )
    }

    /// Writes all of it while both tenants follow.
    pub async fn run(self, db: &TestDb, server: &Server, verdict: &mut Verdict) {
        let (mut writers, mut followers) = (JoinSet::new(), JoinSet::new());
        for tenant in TENANTS {
            let api = server.api.with_token(&token::token(tenant));
            let wanted = (self.per_tenant, self.patience);
            let of_subject = (self.per_tenant / 50, self.patience);
            followers.spawn(follow_socket(api.clone(), tenant, wanted, &["deal.*"], &[]).await);
            followers.spawn(
                follow_socket(api.clone(), tenant, of_subject, &["deal.stage.*"], &["s-7"]).await,
            );
            followers.spawn(follow_stream(api.clone(), tenant, wanted).await);
            let (uploads, arrays, frames, sql) = self.parts();
            for part in 0..UPLOADS {
                writers.spawn(upload(api.clone(), tenant, part, uploads / UPLOADS));
            }
            writers.spawn(post_arrays(api.clone(), tenant, arrays));
            writers.spawn(send_frames(api.clone(), tenant, frames));
            let role = login(db, tenant, "tidewire_writer").await;
            let client = db.connect_as(&role, &role).await;
            writers.spawn(write_sql(client, tenant, sql));
        }
        while let Some(written) = writers.join_next().await {
            verdict.refused.extend(written.unwrap());
        }
        while let Some(followed) = followers.join_next().await {
            verdict.take(followed.unwrap());
        }
    }
}

/// A role of the tenant.
pub async fn login(db: &TestDb, tenant: &str, group: &str) -> String {
    let role = db.login(group).await;
    let own = format!("{role}_{tenant}");
    let statements =
        format!("ALTER ROLE {role} RENAME TO {own}; ALTER ROLE {own} PASSWORD '{own}'");
    let owner = db.connect().await;
    owner.batch_execute(&statements).await.unwrap();
    let map = "INSERT INTO tidewire.tenant_roles (role, tenant) VALUES ($1, $2)";
    owner.execute(map, &[&own, &tenant]).await.unwrap();
    own
}

/// What the log holds of what was written.
pub async fn count_of(db: &TestDb) -> i64 {
    let count = "SELECT count(*) FROM tidewire.events WHERE topic LIKE 'deal.%'";
    db.connect()
        .await
        .query_one(count, &[])
        .await
        .unwrap()
        .get(0)
}

async fn upload(api: Api, tenant: &'static str, part: usize, count: usize) -> Vec<String> {
    let place = format!("upload{part}");
    let mut lines = String::new();
    for number in 0..count {
        lines.push_str(&with_id(tenant, &place, number).to_string());
        lines.push('\n');
    }
    let request = api
        .request(Method::POST, "/v1/events")
        .header("content-type", "application/x-ndjson")
        .header("prefer", "return=minimal")
        .body(lines);
    let answer = request.send().await.unwrap().text().await.unwrap();
    let summary: Value =
        serde_json::from_str(answer.lines().last().unwrap_or_default()).unwrap_or_default();
    let stored = summary["summary"]["stored"].as_u64().unwrap_or_default();
    let is_whole = usize::try_from(stored).unwrap() == count;
    if is_whole { Vec::new() } else { vec![answer] }
}

/// The ids come from a key, which is the same for both.
async fn post_arrays(api: Api, tenant: &'static str, count: usize) -> Vec<String> {
    let mut refused = Vec::new();
    for batch in 0..count / ARRAY {
        let events: Vec<Value> = (0..ARRAY)
            .map(|n| event(tenant, "array", batch * ARRAY + n))
            .collect();
        let request = api
            .request(Method::POST, "/v1/events")
            .header("idempotency-key", format!("batch-{batch}"));
        let (status, answer) = json_of(request.json(&events).send().await.unwrap()).await;
        let is_new = answer["events"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["duplicate"] == false));
        if status != 201 || !is_new {
            refused.push(answer.to_string());
        }
    }
    refused
}

async fn send_frames(api: Api, tenant: &'static str, count: usize) -> Vec<String> {
    let mut refused = Vec::new();
    let mut ws = api.ws().await;
    for frame in 0..count / FRAME {
        let events: Vec<Value> = (0..FRAME)
            .map(|n| with_id(tenant, "frame", frame * FRAME + n))
            .collect();
        ws.send(json!({"type": "append", "ref": "r", "events": events}))
            .await;
        let answer = ws.next().await.unwrap().unwrap();
        if answer["type"] != "appended" {
            refused.push(answer.to_string());
        }
    }
    refused
}

async fn write_sql(
    client: tokio_postgres::Client,
    tenant: &'static str,
    count: usize,
) -> Vec<String> {
    let append = "SELECT duplicate FROM tidewire.append($1, $2, subject => $3, id => $4)";
    let mut refused = Vec::new();
    for number in 0..count {
        let event = with_id(tenant, "sql", number);
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let (topic, subject, id) = (text("topic"), text("subject"), text("id"));
        match client
            .query_one(append, &[&topic, &event["data"], &subject, &id])
            .await
        {
            Ok(row) if !row.get::<_, bool>(0) => {}
            other => refused.push(format!("{other:?}")),
        }
    }
    refused
}
