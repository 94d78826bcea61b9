//! PostgreSQL itself: connections, what the server demands of a database, the schema, and the embedded server.
//!
//! # Invariants
//! - Knows nothing of events; the log's SQL stands in `log`.

mod advice;
mod applied;
mod attempts;
pub mod connect;
pub mod definitions;
pub mod embedded;
pub mod requirements;
pub mod schema;
pub mod shortage;
pub mod tenant_roles;
pub mod tls;

pub use advice::told;
pub use connect::{ConnectError, Connector};
pub use shortage::{Resource, Shortage, Shortages};
