//! The dead-man watch: who gives no sign of life is told of in the log, once a spell, and nobody who merely could not be heard.

mod declared;
pub mod fixture;
mod forgotten;
mod outages;
mod servers;
mod spells;
mod tenants;
