//! People and their data: erased from history, shown to whom they are owed, kept no longer than the tenant says.

mod asking;
mod batches;
mod chunks;
mod contention;
mod erasure;
pub mod fixture;
mod interrupted;
mod many_rules;
mod region;
mod retention;
mod rules;
mod sharing;
mod slots;
mod subjects;
mod undue;
