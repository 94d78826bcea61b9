//! Tests that need a real PostgreSQL: `script/with-postgres cargo nextest run`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

mod support;

mod admin;
mod alerts;
mod api_keys;
mod append;
mod append_only;
mod audit;
mod batches;
mod begun;
mod blocked;
mod bombs;
mod breaker;
mod browser;
mod burst;
mod certificates;
mod checks;
mod cli;
mod concurrency;
mod conflation;
mod consumers;
mod crash;
mod default_priority;
mod definitions;
mod drain;
mod embedded;
mod encodings;
mod ended_keys;
mod failures;
mod faults;
mod first_steps;
mod first_writer;
mod gate;
mod given_up;
mod health;
mod held_appends;
mod held_up;
mod history;
mod hostile;
mod http2;
mod jwt;
mod lag;
mod limits;
mod locks;
mod looks;
mod many_revocations;
mod matrix;
mod memory;
mod metrics;
mod ndjson;
mod nonsense;
mod origins;
mod overtaken;
mod own;
mod own_database;
mod pages;
mod patience;
mod patterns;
mod periods;
mod permissions;
mod pg_tls;
mod privacy;
mod reading;
mod restored;
mod retaining;
mod retention;
mod revocation;
mod revoked_until;
mod schema;
mod session_budget;
mod settings;
mod slow_reader;
mod sql;
mod sql_audit;
mod sql_tenants;
mod sse;
mod statements;
mod strangers;
mod system;
mod tenants;
mod tls;
mod topics;
mod traces;
mod unread;
mod url_tokens;
mod wakeup;
mod watch;
mod withdrawn;
mod ws;
mod ws_wire;
