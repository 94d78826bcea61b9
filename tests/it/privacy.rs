//! People and their data: erased from history, shown to whom they are owed, kept no longer than the tenant says.

mod asking;
mod batches;
mod contention;
mod erasure;
mod fixture;
mod interrupted;
mod region;
mod retention;
mod rules;
mod sharing;
mod subjects;
