//! Normalisation, cosine similarity and the logit scale.
