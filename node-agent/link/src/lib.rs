//! The agent's end of the agent link.
