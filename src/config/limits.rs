//! Settings: how much a tenant and a credential may ask of this server.

use clap::Args;

use super::administration::Administration;
use crate::access::limits::{Allowance, Allowances, Rate};
use crate::event::limits;

/// How much a tenant and a credential may ask of this server. Rates are per second, with a burst after a colon.
#[derive(Debug, Clone, Args)]
pub struct Limits {
    /// Open connections at most: sockets, streams, waiting long-polls and uploads.
    #[arg(long, env = "TIDEWIRE_CONNECTIONS_MAX", default_value_t = limits::CONNECTIONS_MAX, value_name = "COUNT")]
    pub connections_max: usize,

    /// Subscriptions of all `WebSockets` at most.
    #[arg(long, env = "TIDEWIRE_SUBSCRIPTIONS_MAX", default_value_t = limits::SUBSCRIPTIONS_TOTAL_MAX, value_name = "COUNT")]
    pub subscriptions_max: usize,

    /// Events that a tenant may append a second, such as 1000 or 1000:5000.
    #[arg(long, env = "TIDEWIRE_TENANT_EVENTS_RATE", value_name = "RATE")]
    pub tenant_events_rate: Option<Rate>,

    /// Bytes of requests with which a tenant appends, a second.
    #[arg(long, env = "TIDEWIRE_TENANT_BYTES_RATE", value_name = "RATE")]
    pub tenant_bytes_rate: Option<Rate>,

    /// Pages of history that a tenant may read a second.
    #[arg(long, env = "TIDEWIRE_TENANT_READS_RATE", value_name = "RATE")]
    pub tenant_reads_rate: Option<Rate>,

    /// Open connections of a tenant at most.
    #[arg(long, env = "TIDEWIRE_TENANT_CONNECTIONS_MAX", value_name = "COUNT")]
    pub tenant_connections_max: Option<usize>,

    /// Subscriptions of a tenant at most.
    #[arg(long, env = "TIDEWIRE_TENANT_SUBSCRIPTIONS_MAX", value_name = "COUNT")]
    pub tenant_subscriptions_max: Option<usize>,

    /// Events that a credential may append a second.
    #[arg(long, env = "TIDEWIRE_CREDENTIAL_EVENTS_RATE", value_name = "RATE")]
    pub credential_events_rate: Option<Rate>,

    /// Bytes of requests with which a credential appends, a second.
    #[arg(long, env = "TIDEWIRE_CREDENTIAL_BYTES_RATE", value_name = "RATE")]
    pub credential_bytes_rate: Option<Rate>,

    /// Pages of history that a credential may read a second.
    #[arg(long, env = "TIDEWIRE_CREDENTIAL_READS_RATE", value_name = "RATE")]
    pub credential_reads_rate: Option<Rate>,

    /// Open connections of a credential at most.
    #[arg(
        long,
        env = "TIDEWIRE_CREDENTIAL_CONNECTIONS_MAX",
        value_name = "COUNT"
    )]
    pub credential_connections_max: Option<usize>,

    /// Subscriptions of a credential at most.
    #[arg(
        long,
        env = "TIDEWIRE_CREDENTIAL_SUBSCRIPTIONS_MAX",
        value_name = "COUNT"
    )]
    pub credential_subscriptions_max: Option<usize>,

    /// How often administrators may ask.
    #[command(flatten)]
    pub administration: Administration,
}

impl Limits {
    /// As those who enforce them take them.
    #[must_use]
    pub const fn allowances(&self) -> Allowances {
        Allowances {
            tenant: Allowance {
                events: self.tenant_events_rate,
                bytes: self.tenant_bytes_rate,
                reads: self.tenant_reads_rate,
                administration: self.administration.tenant_administration_rate,
                connections: self.tenant_connections_max,
                subscriptions: self.tenant_subscriptions_max,
            },
            credential: Allowance {
                events: self.credential_events_rate,
                bytes: self.credential_bytes_rate,
                reads: self.credential_reads_rate,
                administration: self.administration.credential_administration_rate,
                connections: self.credential_connections_max,
                subscriptions: self.credential_subscriptions_max,
            },
            connections: self.connections_max,
            subscriptions: self.subscriptions_max,
        }
    }
}
