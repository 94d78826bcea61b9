//! Settings of privacy.

use clap::Args;

use crate::event::Label;

/// What the log says of where data come from.
#[derive(Debug, Clone, Args)]
pub struct Privacy {
    /// Region of events that name none, such as eu-central-1; at most 64 bytes.
    #[arg(long, env = "TIDEWIRE_REGION", value_parser = region, value_name = "REGION")]
    pub region: Option<Label>,
}

fn region(text: &str) -> Result<Label, String> {
    Label::parse_short(text).map_err(|error| format!("the region {error}"))
}
