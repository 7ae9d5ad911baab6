//! The log engine: files in, records out.
//!
//! [`engine`] drives the rooms: [`discover`] finds files, `watch` says where to look first, [`identity`] knows them
//! again after a rename, [`read`] reads windows of their bytes, [`split`] makes
//! records of a window ([`cri`], [`time`], [`multiline`]), [`text`] and [`severity`] make them fit
//! to send, [`class`] and [`fingerprint`] say which errors are of one kind and [`fold`] counts
//! equal ones, [`redact`] takes secrets out of them, [`budget`]
//! says how much may be sent, [`position`] remembers how far each file was delivered.
//!
//! Nothing here knows of Kubernetes, of a network or of an async runtime, and
//! memory does not grow with the size of files: what was not delivered is not
//! kept, the file is the buffer.

pub mod budget;
pub mod class;
pub mod cri;
pub mod discover;
pub mod engine;
pub mod fingerprint;
pub mod fold;
pub mod identity;
pub mod multiline;
pub mod position;
pub mod read;
pub mod redact;
pub mod seek;
pub mod severity;
pub mod split;
pub mod text;
pub mod time;
mod watch;
