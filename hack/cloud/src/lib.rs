//! A development Kestrel Cloud.
