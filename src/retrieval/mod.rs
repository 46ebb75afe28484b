//! How well embeddings find their pairs.
