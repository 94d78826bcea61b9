//! A connection of the pool, lent for a piece of work together with the turn in which that is done.
//!
//! # Invariants
//! - Whoever gives its work up, by dropping it or when its time is over, has it ended in the database as well. Until that
//!   says so the turn stays taken: no more runs at once than there are turns. Bounded: [`END_MAX`].
//! - A connection whose work was given up is closed, never given back: whoever took it next would wait behind that work.
//! - Work that is brought to its end costs nothing more: no statement, no task.

use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::time::Duration;

use deadpool_postgres::Object;
use scopeguard::ScopeGuard;
use tokio::time::error::Elapsed;
use tokio_postgres::Client;

use super::error::{ReadError, Unavailable};
use crate::event::limits::DATABASE_SILENCE_MAX;
use crate::fair::Permit;
use crate::pg::Connector;

/// How long the end of what was given up is waited for. The database ends it by then in any case (`STATEMENT_MAX`).
const END_MAX: Duration = DATABASE_SILENCE_MAX;
/// A request to end that came before its statement did is forgotten: there is another after so long.
const END_AGAIN: Duration = Duration::from_millis(250);

/// See the module. Ends with [`Loan::settle`].
#[derive(Debug)]
pub(super) struct Loan(ScopeGuard<Lent, fn(Lent)>);

#[derive(Debug)]
struct Lent {
    client: Object,
    turn: Permit,
    connector: Connector,
}

impl Loan {
    /// Lends `client` for the time of `turn`; `connector` opened it.
    pub(super) fn new(client: Object, turn: Permit, connector: &Connector) -> Self {
        let lent = Lent {
            client,
            turn,
            connector: connector.clone(),
        };
        Self(scopeguard::guard(lent, Lent::give_up))
    }

    /// Gives connection and turn back with what came of the work, if it came in time.
    ///
    /// # Errors
    /// As the work's, and if it was given up.
    pub(super) fn settle<T>(
        self,
        answered: Result<Result<T, ReadError>, Elapsed>,
    ) -> Result<T, ReadError> {
        let outcome = answered.map_err(|_| Unavailable::Silent)?;
        drop(ScopeGuard::into_inner(self.0));
        outcome
    }
}

impl Deref for Loan {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.0.client
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.0.client
    }
}

impl Lent {
    fn give_up(self) {
        let Self {
            client,
            turn,
            connector,
        } = self;
        let client = Object::take(client);
        let tasks = connector.tasks().clone();
        tasks.spawn_until_stop(async move {
            let _ = tokio::time::timeout(END_MAX, end(&client, &connector)).await;
            drop(client);
            drop(turn);
        });
    }
}

/// Has the database end what runs over a connection, and waits until it has.
async fn end(client: &Client, connector: &Connector) {
    let token = client.cancel_token();
    // Its answer, whatever it is, comes after those to all that was asked before.
    let mut last = pin!(client.check_connection());
    loop {
        connector.cancel(&token).await;
        if tokio::time::timeout(END_AGAIN, &mut last).await.is_ok() {
            return;
        }
    }
}
