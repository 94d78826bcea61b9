//! Who may do what: every route and every message of the WebSocket, by every role, of the own and of another tenant, with
//! credentials that are valid and with every kind that is not.
//!
//! The rows are compared with the route table and with the list of messages: one without a row fails.

mod credentials;
mod frames;
mod routes;
