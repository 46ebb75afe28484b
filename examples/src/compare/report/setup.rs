//! What was asked and done, and what it cannot show.

use super::document::Block;
use super::measures::{listed, percent};
use crate::compare::figures::RELEVANT;
use crate::compare::results::Results;
use crate::models::ImageTowerConfig;
use crate::number::{counted, fixed};

/// The question, and how this was made; `page` is where the other form of this lies.
pub(super) fn question(results: &Results, source: &str, page: Option<&str>) -> Vec<Block> {
    let also = page.map_or(String::new(), |page| {
        format!(" The same as [a page]({page}) that needs nothing but itself.")
    });
    let made = format!(
        "*Written by* `compare report` *from* [its results file]({source})*; every figure here is \
         computed from that file.*{also}"
    );
    let question = match results.setup.training.shared.data.path {
        None => {
            "Several papers hold that contrastive learning suffers where a caption fits several \
             images of a batch: their pairs are taken for negatives and are none. The papers weigh \
             such pairs less, remove them, or relax the contrast. Does that help? Generated scenes \
             know exactly which captions mean the same. So the share of false negatives in a batch \
             can be set, and what is retrieved can be judged by what it means."
        }
        Some(_) => {
            "Several papers hold that contrastive learning suffers where pairs of a batch are \
             taken for negatives and are none. The papers weigh such pairs less, remove them, or \
             relax the contrast. Does that help? Here captions of one image are known to mean the \
             same, so that the share of such false negatives in a batch can be set. Whether \
             captions of different images mean the same is not known."
        }
    };
    vec![Block::Text(made), Block::Text(question.to_string())]
}

/// What was done.
pub(super) fn setup(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let mut points = vec![described(results), rates(results)];
    points.push(encoders(results));
    points.push(optimiser(results));
    points.push(format!(
        "**Runs.** {} of each of the nine objectives that bear on the question, {} of each of the \
         others, at every rate. With the same seed all objectives begin with the same parameters \
         and see the same batches.",
        counted(protocol.seeds as u64, "run"),
        counted(protocol.fewer_seeds as u64, "run"),
    ));
    points.push(format!(
        "**Settings.** One parameter of each objective is searched, by one rule for all: three \
         values, with learning rates of {}; where the best is the first or the last of the three, \
         one value beyond it, as far as that one is from its neighbour. What is best on the \
         validation images at a rate of {} is taken for all rates. Test images decide nothing.",
        listed(
            &protocol
                .learning_rates
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
        ),
        percent(protocol.search_rate),
    ));
    points.push(
        "**Teacher.** The model of `info-nce` trained on batches without false negatives, with \
         the same budget and the same training pairs. It is one for all runs."
            .to_string(),
    );
    points.push(made(results));
    vec![Block::List(points)]
}

/// What the images are.
fn described(results: &Results) -> String {
    let (protocol, data) = (&results.setup.protocol, &results.setup.training.shared.data);
    match &data.path {
        None => format!(
            "**Data.** {} scenes of two or three objects, as images of {size} by {size} pixels \
             with five captions each. {} of them share their meaning with one or two others: the \
             layout, and the size, colour and shape of each object. {} are for test, {} for \
             validation, the others to train on; no meaning is in two of these. Test images share \
             meanings too, so that no model that goes by meaning can exceed an R@1 of about {} %.",
            counted(data.scenes.train as u64, "scene").trim_end_matches(" scenes"),
            percent(data.scenes.repeated),
            protocol.test,
            protocol.validation,
            fixed(100.0 * (1.0 - 0.6 * data.scenes.repeated), 0),
            size = data.scenes.image_size,
        ),
        Some(path) => format!(
            "**Data.** `{}`. Captions of one image mean the same, nothing else is known of \
             meanings.",
            path.file_name().unwrap_or_default().to_string_lossy()
        ),
    }
}

fn rates(results: &Results) -> String {
    let size = results.setup.training.shared.data.batch_size;
    let rates = &results.setup.protocol.rates;
    let shown: Vec<String> = rates.iter().map(|&rate| percent(rate)).collect();
    let pairs = rates
        .iter()
        .map(|rate| (rate * size as f64).round().to_string());
    let own = match results.setup.training.shared.data.path {
        None => "",
        Some(_) => " Here the same image is shown in both, and only the words differ.",
    };
    format!(
        "**Rate.** The share of a batch's pairs that have another pair there whose caption means \
         the same: {}, which is {} of {size} pairs. No other two pairs of a batch mean the \
         same.{own} Training pairs, validation and test are the same at all rates.",
        listed(&shown),
        listed(&pairs.collect::<Vec<_>>()),
    )
}

fn encoders(results: &Results) -> String {
    let model = &results.setup.training.system.model;
    let layers = |count: usize| counted(count as u64, "layer");
    let image = match &model.image {
        ImageTowerConfig::Vit(vit) => format!(
            "A vision transformer ({} of width {}, patches of {patch} by {patch} pixels)",
            layers(vit.layers),
            vit.width,
            patch = vit.patch_size,
        ),
        ImageTowerConfig::ResNet(net) => {
            format!("A residual network (embeddings of width {})", net.width)
        }
    };
    format!(
        "**Encoders.** {image} and a text transformer ({} of width {}, at most {} tokens of {}), \
         with embeddings of {} numbers. Their parameters are random at first.",
        layers(model.text.layers),
        model.text.width,
        model.text.context,
        model.text.vocabulary,
        model.embedding,
    )
}

fn optimiser(results: &Results) -> String {
    let shared = &results.setup.training.shared;
    let (schedule, optimiser) = (&shared.schedule, &shared.optimizer);
    let name = if optimiser.decoupled { "AdamW" } else { "Adam" };
    let clipped = optimiser.max_grad_norm.map_or(String::new(), |norm| {
        format!(", gradients of a norm of at most {norm}")
    });
    format!(
        "**Budget.** {} of {} for each run, by {name}: weight decay {}, β {} and {}{clipped}. The \
         learning rate rises for {}, then falls ({}).",
        counted(schedule.steps as u64, "step"),
        counted(shared.data.batch_size as u64, "pair"),
        optimiser.weight_decay,
        optimiser.beta_1,
        optimiser.beta_2,
        counted(schedule.warmup_steps as u64, "step"),
        format!("{:?}", schedule.decay).to_lowercase(),
    )
}

/// By what command, and when.
fn made(results: &Results) -> String {
    let protocol = &results.setup.protocol;
    let data = match results.setup.training.shared.data.path {
        None => "",
        Some(_) => " --data PATH",
    };
    let last = results
        .runs
        .iter()
        .filter_map(|run| Some(run.made.as_ref()?.ended))
        .max();
    let on = last.map_or(String::new(), |seconds| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let date = humantime::format_rfc3339(time).to_string();
        format!(" The last run ended on {}.", &date[..10])
    });
    format!(
        "**Command.** `compare run --seeds {} --fewer-seeds {}{data}`, with the settings that the \
         results file has.{on}",
        protocol.seeds, protocol.fewer_seeds
    )
}

/// How figures are computed.
pub(super) fn figures(results: &Results) -> Vec<Block> {
    let has_scenes = results.setup.training.shared.data.path.is_none();
    let mut points = vec![
        "**R@k**: how often a caption's own image (t→i), or one of an image's own captions (i→t), \
         is among the first k. In percent. Another image of the same meaning does not count. \
         **R@sum** is R@1 + R@5 + R@10 of both directions, at most 600."
            .to_string(),
        "**nDCG@10**: the gains of the first ten candidates, each divided by the logarithm (to \
         base 2) of its rank plus one, as a share of what the best order of all candidates gives. \
         Gains are linear. **R-precision**: the share of relevant ones among the first R \
         candidates, where R of all are relevant. Both in percent, as the mean of both directions."
            .to_string(),
    ];
    let equal = if has_scenes {
        "**Equal**: the gain of a candidate is 1 if it means the same, else 0; 1 is relevant."
    } else {
        "**Equal**: the gain of a candidate is 1 if it belongs to the same image, else 0; 1 is \
         relevant."
    };
    points.push(equal.to_string());
    if has_scenes {
        points.push(format!(
            "**Overlap**: the gain is the share of facts that agree, of the size, colour and shape \
             of each object and of how each two objects stand. At least {} % make a candidate \
             relevant: one of the seven facts of two objects may differ, two of the twelve of \
             three. Most scenes agree in something, so that even a random order has a high \
             nDCG@10 by overlap.",
            fixed(100.0 * RELEVANT, 0)
        ));
    }
    points.push(
        "**Ties** never help: of equally similar candidates, those of less gain come first."
            .to_string(),
    );
    points.push(
        "**Alignment** is the mean squared distance of a caption and its image, **uniformity** \
         the logarithm of the mean of exp(−2 d²) over the distances d of all captions to the \
         images of all captions, **gap** the distance between the mean image and the mean caption; all \
         of embeddings of unit length."
            .to_string(),
    );
    vec![Block::List(points)]
}

/// How differences are tested.
pub(super) fn test() -> Vec<Block> {
    let points = [
        "**±** after a mean is the standard error over seeds, of that objective alone; so are the \
         bars of the charts. It contains what the seeds do to all objectives alike, which Δ does \
         not.",
        "**Δ** is the difference to `info-nce`, by least squares with an effect for each \
         objective and one for each seed. Its standard error comes from the residuals of all \
         objectives at that rate together. Where all seeds are there, Δ is the difference of the \
         two means. An objective with fewer seeds is compared by the seeds that both have, and Δ \
         is not the difference of the means in the table.",
        "**p** is that of the t-test with the degrees of freedom of those residuals; after the \
         semicolon it is adjusted by Holm's method for the eight other objectives that bear on the \
         question. **Bold** where the adjusted p is below 0.05. Objectives with fewer seeds are \
         described and not tested.",
        "The test was chosen for its power, before its own p were known but after most \
         differences were: an earlier form of this report had paired t-tests of each objective \
         alone, which with four seeds have three degrees of freedom and could hardly show \
         anything.",
        "Tests are not corrected for the number of rates and of figures: of twenty such families \
         without any difference, one would have something bold.",
    ];
    vec![Block::List(points.map(String::from).to_vec())]
}

/// What this cannot show.
pub(super) fn limits(results: &Results) -> Vec<Block> {
    let protocol = &results.setup.protocol;
    let shared = &results.setup.training.shared;
    let has_scenes = shared.data.path.is_none();
    let mut points = Vec::new();
    points.push(if has_scenes {
        "Photographs. Scenes have few attributes and exact ones. A photograph's caption fits other \
         photographs more or less, which the overlap of attributes only imitates."
            .to_string()
    } else {
        "Other data, and retrieval by meaning: false negatives are only known among captions of \
         one image."
            .to_string()
    });
    points.push(format!(
        "Other data sets of the same kind, and other test images. There is one draw of images and \
         one test set: standard errors are over {} and {} alone.",
        counted(protocol.seeds as u64, "seed"),
        counted(protocol.fewer_seeds as u64, "seed"),
    ));
    points.push(format!(
        "Large batches. With {} pairs a batch, a pair has one false negative (rarely two) among \
         its negatives, at any rate: the rate says how many pairs have one.",
        shared.data.batch_size
    ));
    points.push(format!(
        "Long trainings and large models. {} end far below what the data allow; the schedule \
         ends a training, not that it would learn no more.",
        counted(shared.schedule.steps as u64, "step")
    ));
    points.extend([
        "Small differences. Seeds alone change R@sum by tens of points. \"Not shown\" is not \
         \"equal\"."
            .to_string(),
        "Differences of objectives whose runs scatter more than others'. One residual variance is \
         taken for all: errors of such an objective are too small here, those of a steady one too \
         large."
            .to_string(),
        "The best of each objective. Six or eight settings are few; they are chosen at one rate, \
         with one seed, whose noise can choose the wrong one."
            .to_string(),
        "The spread of teachers: there is one. It was trained without false negatives. Who has \
         false negatives in the data cannot train such a teacher; that favours the objectives that \
         read it."
            .to_string(),
        "How well weights find false negatives among new pairs. They are looked at on training \
         pairs, which the teacher was trained on too."
            .to_string(),
        "`info-cmr` with synthesised hard negatives, and `image-text-contrastive` with a queue: \
         the first has noise alone here, the second a momentum encoder."
            .to_string(),
    ]);
    vec![Block::List(points)]
}
