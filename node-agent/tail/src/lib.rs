//! The log engine: files in, records out.
