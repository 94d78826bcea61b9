//! The server checks itself: as a client of its own router, in tenants that are there for that alone.
//!
//! # Invariants
//! - One run at a time. It goes to its end, or to the server's, whether or not anybody waits for it.
//! - Its credentials end with it; those of a server that was killed meanwhile end by themselves a minute after the longest run.
//! - It goes through a door of its own, on loopback and at a port of the kernel's choice, which is there for the run alone: the
//!   router is the one that everybody uses, and so is what it asks of credentials.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::access::{ApiKey, Grant, Lease, Principal, Role};
use crate::check::{self, Depth, Plan, Progress};
use crate::client::{Client, Secret};
use crate::event::{Label, Tenant, TopicPattern};
use crate::http::drain::Drain;
use crate::http::entrance::{self, Entrance};
use crate::http::serve::{Patience, serve};
use crate::http::validate::{NotBegun, Validator};
use crate::http::{self, App};

/// More lines than any run has.
const LINES_MAX: usize = 256;
/// How long the door may take to close.
const CLOSE: Duration = Duration::from_secs(2);
/// How much longer than a run its credentials count, at most.
const KEY_GRACE: Duration = Duration::from_mins(1);

/// See the module.
#[derive(Debug, Clone)]
pub struct Validation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    turn: Arc<Semaphore>,
    until: Mutex<Instant>,
}

impl Default for Validation {
    fn default() -> Self {
        Self(Arc::new(Inner {
            turn: Arc::new(Semaphore::new(1)),
            until: Mutex::new(Instant::now()),
        }))
    }
}

impl Validator for Validation {
    fn begin(
        &self,
        app: &App,
        by: &Principal,
        depth: &str,
    ) -> Result<mpsc::Receiver<Value>, NotBegun> {
        let depth: Depth = depth.parse().map_err(NotBegun::Unknown)?;
        let until = || self.0.until.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(turn) = Arc::clone(&self.0.turn).try_acquire_owned() else {
            let left = until().saturating_duration_since(Instant::now());
            return Err(NotBegun::Running(left.max(Duration::from_secs(1))));
        };
        *until() = Instant::now() + depth.time_max();
        let (sender, lines) = mpsc::channel(LINES_MAX);
        let (app, by) = (app.clone(), by.name.clone());
        let tasks = app.tasks.clone();
        tasks.spawn(async move {
            if let Err(error) = validate(&app, &by, depth, &sender).await {
                tracing::warn!(error, "the server could not be checked");
            }
            drop(turn);
        });
        Ok(lines)
    }
}

/// Runs the checks and takes back the credentials.
async fn validate(
    app: &App,
    by: &Label,
    depth: Depth,
    sender: &mpsc::Sender<Value>,
) -> Result<(), String> {
    let mut keys = Vec::new();
    let stop = app.tasks.token().clone();
    // The server's own: its keys are revoked whatever becomes of who asked.
    let lease = app.access.lease(&Principal::development()).await;
    let lease = lease.map_err(|why| why.to_string())?;
    let checked = checked(app, (by, &lease), depth, &mut keys, sender);
    let checked = stop.run_until_cancelled(checked);
    let checked = checked
        .await
        .unwrap_or_else(|| Err("the server stops".to_owned()));
    for (tenant, key) in keys {
        let registry = app.access.registry();
        if let Err(error) = registry
            .revoke_key(&tenant, &key.id, by.as_str(), &lease)
            .await
        {
            tracing::warn!(%error, key = key.id.as_str(), "the key of a check could not be revoked: it ends by itself");
        }
    }
    // Once the keys are revoked: whoever is told that it is over finds it over.
    let report = checked?;
    let _ = sender.try_send(json!({ "report": report }));
    Ok(())
}

async fn checked(
    app: &App,
    (by, lease): (&Label, &Lease),
    depth: Depth,
    keys: &mut Vec<(Tenant, ApiKey)>,
    sender: &mpsc::Sender<Value>,
) -> Result<check::Report, String> {
    let says = |error: &dyn std::fmt::Display| error.to_string();
    for tenant in Tenant::reserved() {
        let grant = grant(tenant.clone(), depth);
        let created = app
            .access
            .registry()
            .create_key(&grant, by.as_str(), lease)
            .await;
        let (key, _) = created.map_err(|error| says(&error))?;
        keys.push((tenant, key));
    }
    let listener = entrance::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.map_err(|error| says(&error))?;
    let url = listener.local_addr().map_err(|error| says(&error))?;
    let url = format!("http://{url}");
    let clients: Result<Vec<Client>, _> = keys
        .iter()
        .map(|(_, key)| Client::new(&url, Some(&Secret::new(key.reveal().reveal()))))
        .collect();
    let mut clients = clients.map_err(|error| says(&error))?.into_iter();
    let Some(client) = clients.next() else {
        return Err("no tenant is reserved for checks".to_owned());
    };
    let door = app.tasks.child();
    let (router, tasks) = (http::router(app.clone()), door.clone());
    door.spawn(async move {
        let patience = Patience::default();
        let drain = Drain::new(Duration::ZERO, tasks.token().clone());
        serve(
            Entrance::new(listener),
            None,
            router,
            patience,
            (&tasks, &drain),
            CLOSE,
        )
        .await;
    });
    let plan = Plan {
        other: clients.next(),
        is_reserved: true,
        ..Plan::new(depth, client)
    };
    let mut tell = |progress: &Progress<'_>| {
        let _ = sender.try_send(json!(progress));
    };
    let report = check::run(&plan, &mut tell).await;
    // What the client keeps open ends with it.
    drop(plan);
    door.stop(CLOSE).await;
    Ok(report)
}

/// An administrator of everything in the tenant, for as long as a run takes.
fn grant(tenant: Tenant, depth: Depth) -> Grant {
    let until = SystemTime::now() + depth.time_max() + KEY_GRACE;
    let all = vec![TopicPattern::any()];
    Grant {
        name: Label::checker(),
        tenant,
        role: Role::Admin,
        read: all.clone(),
        write: all,
        expires_at: until
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(|time| time.as_secs()),
    }
}
