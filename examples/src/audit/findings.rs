//! What was found, for programs and for people.

use std::fmt;

use burn::tensor::Tensor;
use burn_contrastive::analysis::WeighedPair;
use burn_contrastive::objective::ObjectiveConfig;
use burn_contrastive::pairwise::Evaluation;
use serde_json::{Map, Value, json};

use super::measure::{Measured, Named};
use super::statistics::{Precision, Statistics};
use super::tensors::Found;
use super::weights::Weights;
use crate::number::counted;
use crate::words::shown;

/// Everything that was found.
pub struct Findings {
    /// The file's name.
    pub file: String,
    /// What it holds.
    pub found: Vec<Found>,
    /// Number of pairs and width of the embeddings.
    pub shape: [usize; 2],
    /// The device's name.
    pub device: String,
    /// How objectives evaluated similarities.
    pub evaluation: Evaluation,
    /// Each objective, in the order of the list.
    pub objectives: Vec<Finding>,
    /// What the embeddings are like.
    pub statistics: Statistics,
    /// Some pairs as points of a plane, for the page.
    pub map: Option<crate::report::Map>,
    /// The weights of the negatives.
    pub weights: Option<Weights>,
}

/// What was found of an objective.
pub struct Finding {
    /// Its name in the list.
    pub name: String,
    /// What it is.
    pub config: ObjectiveConfig,
    /// Its value.
    pub loss: f64,
    /// Median time of an evaluation.
    pub seconds: f64,
    /// The most memory an evaluation took.
    pub peak_bytes: Option<u64>,
    /// l2 norms of the gradients by image and text.
    pub gradient_norms: [f64; 2],
    /// Of false-negative removal, the share of the negatives of images and of captions it removes.
    pub removed: Option<[f64; 2]>,
}

impl Finding {
    pub(super) fn new(objective: Named, removed: Option<[f64; 2]>, measured: &Measured) -> Self {
        let norm = |x: &Tensor<2>| {
            let square = x.clone().square().sum().into_data();
            square.iter::<f64>().next().map_or(f64::NAN, f64::sqrt)
        };
        Self {
            name: objective.name,
            config: objective.config,
            loss: measured.loss,
            seconds: measured.seconds,
            peak_bytes: measured.peak_bytes,
            gradient_norms: [norm(&measured.gradients[0]), norm(&measured.gradients[1])],
            removed,
        }
    }
}

impl Findings {
    /// As the documentation of the module above describes it.
    pub fn to_json(&self) -> Value {
        let Statistics {
            images,
            retrieval,
            precision,
            similarity,
            ..
        } = &self.statistics;
        let (i2t, t2i) = (retrieval.image_to_text, retrieval.text_to_image);
        let tensor =
            |found: &Found| json!({"name": found.name, "dtype": found.dtype, "shape": found.shape});
        let objective = |found: &Finding| (found.name.clone(), found.to_json());
        json!({
            "embeddings": {
                "file": self.file,
                "pairs": self.shape[0],
                "images": images,
                "width": self.shape[1],
                "tensors": self.found.iter().map(tensor).collect::<Vec<_>>(),
            },
            "device": self.device,
            "evaluation": format!("{:?}", self.evaluation).to_lowercase(),
            "objectives": self.objectives.iter().map(objective).collect::<Map<_, _>>(),
            "retrieval": {
                "i2t_r1": i2t.recall_at_1,
                "i2t_r5": i2t.recall_at_5,
                "i2t_r10": i2t.recall_at_10,
                "t2i_r1": t2i.recall_at_1,
                "t2i_r5": t2i.recall_at_5,
                "t2i_r10": t2i.recall_at_10,
                "rsum": retrieval.recall_sum,
            },
            "precision": precision.as_ref().map(Precision::to_json),
            "similarity": {
                "positive_mean": similarity.positive.mean,
                "positive_deviation": similarity.positive.deviation,
                "negative_mean": similarity.negative.mean,
                "negative_deviation": similarity.negative.deviation,
                "overlap": similarity.overlap(),
                "histogram": {
                    "edges": similarity.edges(),
                    "positive": similarity.positive_counts,
                    "negative": similarity.negative_counts,
                },
            },
            "alignment": self.statistics.alignment,
            "uniformity": self.statistics.uniformity,
            "modality_gap": self.statistics.modality_gap,
            "weights": self.weights.as_ref().map(Weights::to_json),
        })
    }
}

impl Finding {
    fn to_json(&self) -> Value {
        let mut json = json!({
            "objective": self.config,
            "loss": self.loss,
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
            "gradient_norm": {
                "image": self.gradient_norms[0],
                "text": self.gradient_norms[1],
            },
        });
        if let Some([images, captions]) = self.removed {
            json["removed"] = json!({"image_to_text": images, "text_to_image": captions});
        }
        json
    }
}

impl Precision {
    fn to_json(&self) -> Value {
        let side = |precision: &[(usize, f64)]| -> Map<String, Value> {
            let figure = |(k, percent): &(usize, f64)| (k.to_string(), json!(percent));
            precision.iter().map(figure).collect()
        };
        json!({"i2t": side(&self.image_to_text), "t2i": side(&self.text_to_image)})
    }
}

impl Weights {
    fn to_json(&self) -> Value {
        let pair = |pair: &WeighedPair| {
            json!({
                "image": pair.image,
                "text": pair.text,
                "similarity": pair.similarity,
                "teacher_similarity": pair.teacher,
                "image_to_text": pair.image_to_text,
                "text_to_image": pair.text_to_image,
            })
        };
        json!({
            "alpha": self.regulation.alpha,
            "weight_temperature": self.regulation.weight_temperature,
            "information": {
                "image_to_text": self.information[0],
                "text_to_image": self.information[1],
            },
            "histogram": {
                "edges": self.edges,
                "image_to_text": self.image_to_text,
                "text_to_image": self.text_to_image,
            },
            "pairs": self.likely.iter().map(pair).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Findings {
    /// A few lines for a terminal, the last without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics {
            images,
            retrieval,
            similarity,
            ..
        } = &self.statistics;
        let [pairs, width] = self.shape;
        writeln!(
            f,
            "{} of {}, width {width}\n\n{retrieval}\n",
            counted(pairs, "pair"),
            counted(*images, "image")
        )?;
        writeln!(
            f,
            "similarity: positives {:.3} ± {:.3}, negatives {:.3} ± {:.3}, overlap {:.3}",
            similarity.positive.mean,
            similarity.positive.deviation,
            similarity.negative.mean,
            similarity.negative.deviation,
            similarity.overlap()
        )?;
        writeln!(
            f,
            "alignment {:.4}, uniformity {:.4}, modality gap {:.4}\n",
            self.statistics.alignment, self.statistics.uniformity, self.statistics.modality_gap
        )?;
        let names = self.objectives.iter().map(|found| shown(&found.name));
        let names: Vec<_> = names.collect();
        let lengths = names.iter().map(|name| name.chars().count());
        let wide = lengths.max().unwrap_or(0).max("objective".len());
        write!(
            f,
            "{:wide$}  {:>14}  {:>10}  {:>12}",
            "objective", "loss", "seconds", "peak bytes"
        )?;
        for (name, found) in names.iter().zip(&self.objectives) {
            let peak = found
                .peak_bytes
                .map_or("–".to_string(), |bytes| bytes.to_string());
            write!(
                f,
                "\n{name:wide$}  {:>14.6}  {:>10.4}  {peak:>12}",
                found.loss, found.seconds
            )?;
        }
        Ok(())
    }
}
