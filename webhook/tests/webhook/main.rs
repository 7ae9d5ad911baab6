//! The webhook from outside: injection by its text, admission by its socket,
//! certificates by an API server.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod api_server;
mod bad_input;
mod caller;
mod calling;
mod covering;
mod golden;
mod listing;
mod offline;
mod properties;
mod review;
mod rotation;
mod serving;
mod watching;
