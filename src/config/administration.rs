//! Settings: how often administrators may ask.

use clap::Args;

use crate::access::limits::Rate;
use crate::event::Tenant;

/// Who operates the server, and how often administrators may ask: keys, revocations, settings, topics, people's data, retention, the server's state.
#[derive(Debug, Clone, Args)]
pub struct Administration {
    /// Whose administrators may do what touches all tenants (`/v1/admin`); absent: nobody's, but in development.
    #[arg(long, env = "TIDEWIRE_OPERATOR_TENANT", value_name = "TENANT", value_parser = tenant)]
    pub operator_tenant: Option<Tenant>,

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

fn tenant(text: &str) -> Result<Tenant, String> {
    Tenant::parse(text).map_err(|error| error.to_string())
}
