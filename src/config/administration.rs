//! Settings: how often administrators may ask.

use clap::Args;

use crate::access::limits::Rate;

/// How often administrators may ask: keys, revocations, settings, topics, people's data, retention, the server's state.
#[derive(Debug, Clone, Args)]
pub struct Administration {
    /// Administrative requests of a tenant a second.
    #[arg(
        long,
        env = "TIDEWIRE_TENANT_ADMINISTRATION_RATE",
        default_value = "50:1000",
        value_name = "RATE"
    )]
    pub tenant_administration_rate: Option<Rate>,

    /// Administrative requests of a credential a second.
    #[arg(
        long,
        env = "TIDEWIRE_CREDENTIAL_ADMINISTRATION_RATE",
        value_name = "RATE"
    )]
    pub credential_administration_rate: Option<Rate>,
}
