//! Image and text encoders.
