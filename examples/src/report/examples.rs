//! Queries with what the model retrieved for them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::number;

/// Queries of both directions, with the best results of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Examples {
    /// Captions that look for their image.
    pub text_to_image: Vec<CaptionQuery>,
    /// Images that look for one of their captions.
    pub image_to_text: Vec<ImageQuery>,
}

/// A caption and the images that the model finds most similar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptionQuery {
    /// The query.
    pub caption: String,
    /// File of its own image.
    pub image: PathBuf,
    /// Rank of its own image among all, from one.
    pub rank: u64,
    /// The most similar images, best first.
    pub results: Vec<RankedImage>,
}

/// An image and the captions that the model finds most similar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageQuery {
    /// File of the query.
    pub image: PathBuf,
    /// The best ranked of its own captions.
    pub caption: String,
    /// Rank of that caption among all, from one.
    pub rank: u64,
    /// The most similar captions, best first.
    pub results: Vec<RankedCaption>,
}

/// An image that was retrieved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankedImage {
    /// File of the image.
    pub image: PathBuf,
    /// Its similarity to the query.
    #[serde(with = "number::or_null")]
    pub similarity: f64,
    /// Whether it is the query's own image.
    pub is_match: bool,
}

/// A caption that was retrieved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankedCaption {
    /// The caption.
    pub caption: String,
    /// Its similarity to the query.
    #[serde(with = "number::or_null")]
    pub similarity: f64,
    /// Whether it is one of the query's own captions.
    pub is_match: bool,
}
