//! What a training loop calls: one file an objective.

#[macro_use]
mod display;

mod alignment;
mod barlow_twins;
mod con_vse_plus_plus;
mod info_nce;
mod max_margin;
mod orthogonality;
mod reco;
mod reduction;
mod sig_lip;
mod uniformity;
mod vse;
mod vse_plus_plus;

pub use alignment::{Alignment, AlignmentConfig};
pub use barlow_twins::{BarlowTwins, BarlowTwinsConfig};
pub use con_vse_plus_plus::{ConVsePlusPlus, ConVsePlusPlusConfig};
pub use info_nce::{InfoNce, InfoNceConfig, Negatives};
pub use max_margin::{MaxMargin, MaxMarginConfig};
pub use orthogonality::{Orthogonality, OrthogonalityConfig};
pub use reco::{ReCo, ReCoConfig};
pub use reduction::Reduction;
pub use sig_lip::{SigLip, SigLipConfig};
pub use uniformity::{Uniformity, UniformityConfig};
pub use vse::{Vse, VseConfig};
pub use vse_plus_plus::{VsePlusPlus, VsePlusPlusConfig};
