//! What a training loop calls: one file an objective.

#[macro_use]
mod config;
#[macro_use]
mod paired;

mod alignment;
mod barlow_twins;
mod con_vse;
mod con_vse_plus_plus;
mod contrastive;
mod decoupled;
mod entry;
mod false_negative_removal;
mod image_text_contrastive;
mod image_text_matching;
mod info_cmr;
mod info_nce;
mod masked_language;
mod max_margin;
mod multi_positive;
mod mvn;
mod named;
mod nt_xent;
mod orthogonality;
mod reco;
mod reduction;
mod sig_lip;
mod srcl;
#[cfg(test)]
mod tests;
mod uniformity;
mod vse;
mod vse_plus_plus;

pub use alignment::{Alignment, AlignmentConfig};
pub use barlow_twins::{BarlowTwins, BarlowTwinsConfig};
pub use con_vse::{ConVse, ConVseConfig};
pub use con_vse_plus_plus::{ConVsePlusPlus, ConVsePlusPlusConfig};
pub use contrastive::{
    Context, Contrastive, ContrastiveConfig, Criterion, Directions, Ids, Momentum, Negatives,
    SameId, Teacher,
};
pub use decoupled::{Decoupled, DecoupledConfig};
pub use entry::{Features, Input, Parameter, Value};
pub use false_negative_removal::{FalseNegativeRemoval, FalseNegativeRemovalConfig};
pub use image_text_contrastive::{ImageTextContrastive, ImageTextContrastiveConfig};
pub use image_text_matching::{ImageTextMatching, ImageTextMatchingConfig, MatchingPairs};
pub use info_cmr::{InfoCmr, InfoCmrConfig};
pub use info_nce::{InfoNce, InfoNceConfig};
pub use masked_language::{Masked, MaskedLanguage, MaskedLanguageConfig};
pub use max_margin::{MaxMargin, MaxMarginConfig};
pub use multi_positive::{MultiPositive, MultiPositiveConfig};
pub use mvn::{Mvn, MvnConfig};
pub use named::{
    AnyConfig, AnyObjective, Extras, Objective, ObjectiveConfig, WeightedSum, WeightedSumConfig,
};
pub use nt_xent::{NtXent, NtXentConfig};
pub use orthogonality::{Orthogonality, OrthogonalityConfig};
pub use reco::{ReCo, ReCoConfig};
pub use reduction::BatchReduction;
pub use sig_lip::{SigLip, SigLipConfig};
pub use srcl::{Srcl, SrclConfig};
pub use uniformity::{Uniformity, UniformityConfig};
pub use vse::{Vse, VseConfig};
pub use vse_plus_plus::{VsePlusPlus, VsePlusPlusConfig};
