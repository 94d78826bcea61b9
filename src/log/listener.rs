//! The connection that hears NOTIFY, and by which this server says whether it sleeps.
//!
//! # Invariants
//! - Carries no event data. After every loss it wakes the tail, which then polls until there is a new connection; its
//!   death costs wake-ups, never events.
//! - Sleeping is holding this server's slot exclusively (`sql/functions/wake_servers.sql`): the lock dies with the
//!   connection, so a server that is gone is never waited for.
//! - A connection that did not say in time whether it sleeps is given up: what it was asked could still be done, and a lock
//!   that is had twice, or unknown, would make writers notify for ever.

use crate::backoff::Backoff;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::inbox::Inbox;
use super::wakeup::NotifyMode;
use crate::pg::Connector;
use crate::tasks::{Tasks, pause};

const LISTEN: &str = "LISTEN tidewire";
const LOCK: &str = "SELECT pg_try_advisory_lock($1, $2)";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1, $2)";
const PING: &str = "SELECT 1";

/// Statements of this file, for the test that prepares each.
pub const STATEMENTS: &[&str] = &[LISTEN, LOCK, UNLOCK, PING];

/// Slots in `wake_servers`. Servers beyond have none, never sleep, and poll.
const SLOTS: i32 = 8;
/// Which server owns a slot.
const OWNER_CLASS: i32 = 1_953_064_033;
/// Which slots sleep.
const SLEEP_CLASS: i32 = 1_953_064_036;

/// A quiet connection is asked this often whether it still answers.
const PING_INTERVAL: Duration = Duration::from_secs(2);
/// And replaced if it has not answered within this time.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// One LISTEN connection that is up.
#[derive(Debug)]
pub struct Ear {
    client: Client,
    slot: Option<i32>,
    /// Whether the slot's lock is held is not known any more.
    given_up: CancellationToken,
}

impl Ear {
    /// Falls asleep: from now on every writer notifies. `false` if a writer that took this server for awake has not
    /// ended yet, if there is no slot, or if the connection is gone.
    pub async fn sleep(&self) -> bool {
        let Some(slot) = self.slot else { return false };
        let params: [&(dyn ToSql + Sync); 2] = [&SLEEP_CLASS, &slot];
        let locked = self.client.query_one(LOCK, &params);
        if let Ok(Ok(row)) = tokio::time::timeout(PING_TIMEOUT, locked).await {
            row.try_get(0).unwrap_or(false)
        } else {
            self.given_up.cancel();
            false
        }
    }

    /// Wakes: writers need not notify.
    pub async fn wake(&self) {
        let Some(slot) = self.slot else { return };
        let params: [&(dyn ToSql + Sync); 2] = [&SLEEP_CLASS, &slot];
        let unlocked = self.client.execute(UNLOCK, &params);
        if !matches!(
            tokio::time::timeout(PING_TIMEOUT, unlocked).await,
            Ok(Ok(_))
        ) {
            self.given_up.cancel();
        }
    }

    /// Whether the connection is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.client.is_closed() || self.given_up.is_cancelled()
    }
}

/// Keeps a LISTEN connection up.
#[derive(Debug, Clone)]
pub struct Listener {
    ear: watch::Receiver<Option<Arc<Ear>>>,
    reconnects: watch::Receiver<u64>,
}

impl Listener {
    /// Connects in the background, again and again. Every notification and every loss asks `inbox` for a look. With
    /// [`NotifyMode::Never`] it does not: behind a pooler the connection, and its slot, would be anybody's.
    #[must_use]
    pub fn start(mode: NotifyMode, connector: Connector, inbox: Arc<Inbox>, tasks: &Tasks) -> Self {
        let (ear_sender, ear) = watch::channel(None);
        let (count_sender, reconnects) = watch::channel(0_u64);
        tasks.spawn_until_stop(async move {
            if mode == NotifyMode::Never {
                // The senders stay: nobody is told that there will be no connection.
                return std::future::pending().await;
            }
            let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
            loop {
                match open(&connector, &inbox).await {
                    Ok(opened) => {
                        backoff.reset();
                        let opened = Arc::new(opened);
                        let _ = ear_sender.send(Some(Arc::clone(&opened)));
                        inbox.ask_for_look();
                        listen_until_lost(&opened).await;
                        let _ = ear_sender.send(None);
                        count_sender.send_modify(|count| *count = count.saturating_add(1));
                        inbox.ask_for_look();
                        tracing::warn!(
                            "the LISTEN connection was lost: polling until there is a new one"
                        );
                    }
                    Err(error) => tracing::debug!(%error, "no LISTEN connection"),
                }
                pause(backoff.next_delay()).await;
            }
        });
        Self { ear, reconnects }
    }

    /// The connection, if one is up.
    #[must_use]
    pub fn ear(&self) -> Option<Arc<Ear>> {
        self.ear.borrow().clone().filter(|ear| !ear.is_closed())
    }

    /// This server's slot, -1 if it has none now.
    #[must_use]
    pub fn slot(&self) -> i32 {
        let ear = self.ear.borrow();
        ear.as_ref().and_then(|ear| ear.slot).unwrap_or(-1)
    }

    /// How often the connection was lost.
    #[must_use]
    pub fn losses(&self) -> u64 {
        *self.reconnects.borrow()
    }
}

async fn open(
    connector: &Connector,
    inbox: &Arc<Inbox>,
) -> Result<Ear, Box<dyn std::error::Error + Send + Sync>> {
    let inbox = Arc::clone(inbox);
    let client = connector
        .connect_listening("listen", move || inbox.ask_for_look())
        .await?;
    let prepared = async {
        client.batch_execute(LISTEN).await?;
        for slot in 0..SLOTS {
            let row = client.query_one(LOCK, &[&OWNER_CLASS, &slot]).await?;
            if row.try_get(0)? {
                return Ok(Some(slot));
            }
        }
        Ok::<_, tokio_postgres::Error>(None)
    };
    let slot = tokio::time::timeout(PING_TIMEOUT, prepared).await??;
    if slot.is_none() {
        tracing::warn!(
            "more than {SLOTS} servers on this database: this one polls instead of listening"
        );
    }
    Ok(Ear {
        client,
        slot,
        given_up: CancellationToken::new(),
    })
}

/// A line can go silent without closing: only an answer proves that it is there.
async fn listen_until_lost(ear: &Ear) {
    let listening = async {
        loop {
            pause(PING_INTERVAL).await;
            let ping = ear.client.simple_query(PING);
            if !matches!(tokio::time::timeout(PING_TIMEOUT, ping).await, Ok(Ok(_))) {
                return;
            }
        }
    };
    let _ = ear.given_up.run_until_cancelled(listening).await;
}
