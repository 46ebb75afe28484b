//! What a user calls: one file an objective.
