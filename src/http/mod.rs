//! Words on the wire: what requests say and how answers are shaped.

pub mod ingest;
pub mod problem;
