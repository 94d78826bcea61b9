//! Tests that need a real PostgreSQL.

#[cfg(test)]
mod cli;
