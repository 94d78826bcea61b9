//! The checks of a running server: they pass where all is well, and fail for the right reason where something is not.

mod command;
mod committed;
mod drill;
mod faults;
mod killed;
mod outside;
mod tampering;
mod validate;
