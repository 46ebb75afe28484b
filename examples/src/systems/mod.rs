//! The systems: one module each, with what it is made of, its step, and what its program reads,
//! measures and reports.

pub mod albef;
pub mod clip;
pub mod it_contrast;
pub mod radiograph;
pub mod visual_semantic;
