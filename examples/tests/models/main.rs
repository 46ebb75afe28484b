//! The models against timm and transformers: values and gradients with the same weights.

mod bert;
mod image_encoder;
mod reference;
