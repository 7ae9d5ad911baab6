//! What every daemon needs and nothing of the domain.
