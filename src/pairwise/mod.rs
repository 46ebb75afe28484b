//! The engine: reductions over all pairs of two sets of embeddings.
