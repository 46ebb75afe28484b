//! Objectives by name: what training programs and tools choose from.
//!
//! ```
//! use burn::tensor::{Device, Distribution, Tensor};
//! use burn_contrastive::objective::{Features, ObjectiveConfig};
//!
//! let json = r#"{"objective": "vse", "margin": 0.3}"#;
//! let config: ObjectiveConfig = serde_json::from_str(json).unwrap();
//!
//! let device = Device::default();
//! let embeddings = || Tensor::<2>::random([8, 16], Distribution::Default, &device);
//! let objective = config.init(&device);
//! let loss = objective.forward(&Features::new(embeddings(), embeddings()));
//! assert_eq!(loss.dims(), [1]);
//!
//! let error = serde_json::from_str::<ObjectiveConfig>(r#"{"objective": "vse", "margins": 0.3}"#);
//! assert!(error.unwrap_err().to_string().contains("did you mean `margin`?"));
//! ```

mod catalogue;
mod config;
mod extras;
mod objective;
mod serde;
mod sum;

pub use catalogue::{AnyConfig, AnyObjective};
pub use config::ObjectiveConfig;
pub use extras::Extras;
pub use objective::Objective;
pub use sum::{WeightedSum, WeightedSumConfig};
