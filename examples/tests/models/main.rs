//! The models against timm, torchvision and transformers, and the parts of ALBEF put together:
//! values and gradients with the same weights.

mod albef;
mod bert;
mod clip;
mod clip_resnet;
mod gru;
mod image_encoder;
mod minilm;
mod published_size;
mod reference;
mod resnet;
