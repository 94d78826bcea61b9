//! When to look for new events: asleep until a notification, awake and looking often, or polling because nobody can notify.
//!
//! # Invariants
//! - Asleep means that the LISTEN connection in use holds this server's slot: a new connection begins awake.
//! - It falls asleep only if no writer that took it for awake is still open, and then asks for one more look.
//! - Whatever it decides, the next look comes within `POLL_INTERVAL`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::listener::{Ear, Listener};
use crate::event::limits::POLL_INTERVAL;

/// Awake, without a commit of our own: how often to look for other writers' events.
const AWAKE_POLL_MIN: Duration = Duration::from_millis(2);
const AWAKE_POLL_MAX: Duration = Duration::from_millis(16);
/// Without a LISTEN connection.
const DEAF_POLL: Duration = Duration::from_millis(25);
/// Quiet for this long: try to sleep.
const QUIET_BEFORE_SLEEP: Duration = Duration::from_millis(25);
/// Woken more often than this within `BUSY_WINDOW`: stay awake.
const BUSY_WAKEUPS: u32 = 20;
const BUSY_WINDOW: Duration = Duration::from_millis(100);

/// When writers have to notify. A setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum NotifyMode {
    /// When this server sleeps.
    #[default]
    Auto,
    /// Always: the server never says that it is awake.
    Always,
    /// Never: the server polls.
    Never,
}

/// What the server is doing about wake-ups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WakeUp {
    /// Asleep: every writer notifies.
    Asleep,
    /// Awake: it looks often, writers need not notify.
    Awake,
    /// There is no LISTEN connection, or it is not wanted: it looks often.
    Polling,
}

impl WakeUp {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Asleep, Self::Awake, Self::Polling];

    /// The word in the status and on metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Awake => "awake",
            Self::Polling => "polling",
        }
    }
}

/// Decides how long to wait for a wake-up.
#[derive(Debug)]
pub struct Sleeper {
    listener: Listener,
    mode: NotifyMode,
    /// The connection that holds the slot.
    asleep_on: Option<Arc<Ear>>,
    state: WakeUp,
    wakeups: u32,
    wakeups_since: Instant,
    quiet_since: Instant,
}

impl Sleeper {
    /// Awake, as far as there is a connection.
    #[must_use]
    pub fn new(listener: Listener, mode: NotifyMode) -> Self {
        let now = Instant::now();
        Self {
            listener,
            mode,
            asleep_on: None,
            state: WakeUp::Polling,
            wakeups: 0,
            wakeups_since: now,
            quiet_since: now,
        }
    }

    /// What it is doing.
    #[must_use]
    pub const fn state(&self) -> WakeUp {
        self.state
    }

    /// How long to wait for a wake-up after a look that `found` events or none.
    pub async fn patience(&mut self, found: bool) -> Duration {
        if found {
            self.quiet_since = Instant::now();
        }
        let ear = if self.mode == NotifyMode::Never {
            None
        } else {
            self.listener.ear()
        };
        let Some(ear) = ear else {
            self.asleep_on = None;
            self.state = WakeUp::Polling;
            return DEAF_POLL;
        };
        if self
            .asleep_on
            .as_ref()
            .is_some_and(|on| Arc::ptr_eq(on, &ear))
        {
            return POLL_INTERVAL;
        }
        self.asleep_on = None;
        let quiet = self.quiet_since.elapsed();
        let wants_sleep = self.mode == NotifyMode::Always || quiet >= QUIET_BEFORE_SLEEP;
        if wants_sleep && ear.sleep().await {
            self.asleep_on = Some(ear);
            self.state = WakeUp::Asleep;
            // Once more: what was committed before the lock was taken has notified nobody.
            return Duration::ZERO;
        }
        self.state = WakeUp::Awake;
        if found {
            AWAKE_POLL_MIN
        } else {
            (quiet / 4).clamp(AWAKE_POLL_MIN, AWAKE_POLL_MAX)
        }
    }

    /// Notes that it was woken. Asleep and woken again and again: better stay awake, so that writers need not notify.
    pub async fn woken(&mut self) {
        let Some(ear) = &self.asleep_on else { return };
        if self.mode == NotifyMode::Always {
            return;
        }
        let now = Instant::now();
        if now.duration_since(self.wakeups_since) > BUSY_WINDOW {
            self.wakeups_since = now;
            self.wakeups = 0;
        }
        self.wakeups = self.wakeups.saturating_add(1);
        if self.wakeups > BUSY_WAKEUPS {
            ear.wake().await;
            self.asleep_on = None;
            self.state = WakeUp::Awake;
            self.quiet_since = now;
            self.wakeups = 0;
        }
    }
}
