//! The training loop: configuration, optimisation, checkpoints.
