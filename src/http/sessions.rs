//! The sessions of readers: sockets, streams, waiting long-polls, pages on their way. What each holds, and since when it has
//! nothing but shown that it is there.
//!
//! # Invariants
//! - A session is listed as long as it lasts. To be told to go is all that can be done to it here.
//! - Idle is who has neither asked for anything nor been handed an event: heartbeats, pings and their answers do not count.
//! - What all of them hold is counted, and bounded (`sessions/room.rs`).

mod room;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use room::{Room, Usage};

use self::room::Open;
use crate::event::Tenant;
use crate::event::limits::SHARE_BYTES_FREE;
use crate::telemetry::{Eviction, Metrics};

/// All of one server.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    began: Instant,
    next: AtomicU64,
    open: Mutex<Open>,
}

#[derive(Debug)]
struct State {
    tenant: Tenant,
    /// Milliseconds after the beginning.
    active_at: AtomicU64,
    dropped: CancellationToken,
    why: OnceLock<Why>,
    /// Cuts the line, which may be stuck.
    cut: Option<Cut>,
}

/// Why a session is told to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// An administrator wants it gone: nothing has happened on it.
    Idle,
    /// The server needs what it holds.
    Evicted(Eviction),
}

impl State {
    fn tell(&self, why: Why) {
        let _ = self.why.set(why);
        self.dropped.cancel();
        if let (Why::Evicted(_), Some(cut)) = (why, &self.cut) {
            cut.0.cancel();
        }
    }
}

/// Asks for the end of what carries a session, a moment later: its client may not take anything, so that nobody else can end
/// it. That is the connection, or over HTTP/2 the stream alone.
#[derive(Debug, Clone, Default)]
pub struct Cut(CancellationToken);

impl Cut {
    /// Waits until the end is asked for, for ever if it is not.
    pub async fn asked(&self) {
        self.0.cancelled().await;
    }
}

/// The server has no room for another one, or for what it wants to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the memory for sessions is in use: come back later")]
pub struct Full;

impl Sessions {
    /// None yet, which hold so much at most.
    #[must_use]
    pub fn new(room: Room, metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            began: Instant::now(),
            next: AtomicU64::new(0),
            open: Mutex::new(Open::new(room, metrics)),
        }))
    }

    /// A session that has just begun, which holds `bytes` for as long as it lasts; its line can be cut by `cut`.
    ///
    /// # Errors
    /// If there is no room, though all have gone that can be told to.
    pub fn enter(&self, tenant: &Tenant, bytes: usize, cut: Option<Cut>) -> Result<Session, Full> {
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let now = self.now();
        let state = Arc::new(State {
            tenant: tenant.clone(),
            active_at: AtomicU64::new(now),
            dropped: CancellationToken::new(),
            why: OnceLock::new(),
            cut,
        });
        let session = Session {
            sessions: self.clone(),
            id,
            state: Arc::clone(&state),
        };
        let mut open = self.open();
        open.add(id, state, bytes);
        let has_room = open.make_room(now, Some(id));
        drop(open);
        // Off the list again with the session.
        if has_room { Ok(session) } else { Err(Full) }
    }

    /// An answer on its way, counted until its last byte is dropped; small ones are the connection's own.
    ///
    /// # Errors
    /// If there is no room.
    pub fn answer(&self, tenant: &Tenant, bytes: Bytes, cut: Option<Cut>) -> Result<Bytes, Full> {
        if bytes.len() <= SHARE_BYTES_FREE {
            return Ok(bytes);
        }
        let session = self.enter(tenant, 0, cut)?;
        Ok(session.sending(bytes))
    }

    /// Tells those to go that have been idle for so long: of one tenant, or of all. How many there were.
    #[must_use]
    pub fn drop_idle(&self, tenant: Option<&Tenant>, idle: Duration) -> usize {
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let now = self.now();
        let is_idle = |one: &Arc<State>| {
            let active_at = one.active_at.load(Ordering::Relaxed);
            let is_of = tenant.is_none_or(|tenant| *tenant == one.tenant);
            is_of && now.saturating_sub(active_at) >= idle && !one.dropped.is_cancelled()
        };
        let idle = self.open().states(is_idle);
        for one in &idle {
            one.tell(Why::Idle);
        }
        idle.len()
    }

    /// What is held now, and what has been done about it.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.open().usage()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// One session; off the list when dropped, and with the last of what it sends.
#[derive(Debug)]
pub struct Session {
    sessions: Sessions,
    id: u64,
    state: Arc<State>,
}

impl Session {
    /// It has asked for something, or was handed something.
    pub fn touch(&self) {
        let now = self.sessions.now();
        self.state.active_at.store(now, Ordering::Relaxed);
    }

    /// Waits until it is told to go, for ever if it is not.
    pub fn dropped(&self) -> impl Future<Output = Why> + Send + use<> {
        let state = Arc::clone(&self.state);
        async move {
            state.dropped.cancelled().await;
            state.why.get().copied().unwrap_or(Why::Idle)
        }
    }

    /// From now on it has so many subscriptions, which hold so much.
    ///
    /// # Errors
    /// If that is more than before, and there is no room; then it holds what it held.
    pub fn subscribe(&self, subscriptions: usize, bytes: usize) -> Result<(), Full> {
        let now = self.sessions.now();
        let mut open = self.sessions.open();
        let before = open.subscribe(self.id, (subscriptions, bytes));
        if bytes > before.1 && !open.make_room(now, Some(self.id)) {
            open.subscribe(self.id, before);
            return Err(Full);
        }
        Ok(())
    }

    /// So many bytes wait for the client to take them, until what is returned is dropped. Whoever holds most of what waits is
    /// told to go where there is no room.
    #[must_use]
    pub fn waits(&self, bytes: usize) -> Waiting {
        self.account().waits(bytes)
    }

    /// Where others count what they hold for it.
    #[must_use]
    pub fn account(&self) -> Account {
        Account {
            sessions: self.sessions.clone(),
            id: self.id,
        }
    }

    /// Bytes that count as waiting until the last of them is dropped; the session lasts as long.
    #[must_use]
    pub fn sending(self, bytes: Bytes) -> Bytes {
        let waiting = self.waits(bytes.len());
        Bytes::from_owner(Sent {
            bytes,
            _waiting: waiting,
            _session: Some(self),
        })
    }

    /// As [`Session::sending`], of a session that sends more.
    #[must_use]
    pub fn sending_next(&self, bytes: Bytes) -> Bytes {
        let waiting = self.waits(bytes.len());
        Bytes::from_owner(Sent {
            bytes,
            _waiting: waiting,
            _session: None,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sessions.open().remove(self.id);
    }
}

/// Counts for a session, which may have ended meanwhile.
#[derive(Debug, Clone)]
pub struct Account {
    sessions: Sessions,
    id: u64,
}

impl Account {
    /// See [`Session::waits`].
    #[must_use]
    pub fn waits(&self, bytes: usize) -> Waiting {
        let now = self.sessions.now();
        let mut open = self.sessions.open();
        open.wait(self.id, bytes, now);
        open.make_room(now, None);
        Waiting {
            sessions: self.sessions.clone(),
            id: self.id,
            bytes,
        }
    }
}

/// Bytes that wait to be taken; they do not when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    sessions: Sessions,
    id: u64,
    bytes: usize,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let now = self.sessions.now();
        self.sessions.open().taken(self.id, self.bytes, now);
    }
}

/// What is on its way.
struct Sent {
    bytes: Bytes,
    _waiting: Waiting,
    _session: Option<Session>,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests;
