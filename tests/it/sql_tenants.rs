//! A tenant's login role against everybody else's events: what it tries is refused, or shows nothing.
//!
//! The other tenant's names, ids and payloads hold a word that must never come back, in rows, errors, notices or plans
//! (`session.rs`). A view broken on purpose shows that the word would be seen.

mod broken;
mod changing;
mod fixture;
mod guessing;
mod issues;
mod locks;
mod looking;
mod objects;
mod plans;
mod role_command;
mod roles;
mod session;
