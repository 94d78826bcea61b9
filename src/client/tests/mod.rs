//! The client against a server that breaks the line at every point.

mod appending;
mod fixture;
mod following;
