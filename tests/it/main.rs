//! The service as its clients see it. Every answer that a test gets through
//! [`harness`] is checked against the `OpenAPI` document.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails that way")]

mod answers;
mod architecture;
mod busy;
mod calibrators;
mod codes;
mod connections;
mod contract;
mod document;
mod errors;
mod foreign;
mod forms;
mod harness;
mod layers;
mod names;
mod notebook;
mod oip;
mod passed;
mod pieces;
mod products;
mod queries;
mod sockets;
