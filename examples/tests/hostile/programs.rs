//! The programs under test, with settings of small runs.

/// A program under test.
#[derive(Clone, Copy)]
pub struct Program {
    pub file: &'static str,
    /// The words of its subcommand.
    pub command: &'static [&'static str],
    /// Settings of a run of a few small steps.
    pub small: &'static [&'static str],
}

pub const CLIP: Program = Program {
    file: env!("CARGO_BIN_EXE_clip"),
    command: &[],
    small: &[
        "data.batch_size=4",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=8",
        "model.image.heads=1",
        "model.image.layers=1",
        "model.text.width=8",
        "model.text.heads=1",
        "model.text.layers=1",
        "model.text.vocabulary=300",
        "model.text.context=12",
        "model.embedding=4",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

/// It is no program of a system: it has no settings.
pub const EMBED: Program = Program {
    file: env!("CARGO_BIN_EXE_embed"),
    command: &[],
    small: &[],
};

pub const ALBEF: Program = Program {
    file: env!("CARGO_BIN_EXE_albef"),
    command: &[],
    small: &[
        "data.batch_size=4",
        "model.image.image_size=16",
        "model.image.patch_size=8",
        "model.image.width=8",
        "model.image.heads=1",
        "model.image.layers=1",
        "model.bert.width=8",
        "model.bert.heads=1",
        "model.bert.layers=2",
        "model.bert.fusion_layers=1",
        "model.bert.intermediate=16",
        "model.bert.vocabulary=300",
        "model.bert.context=12",
        "model.embedding=4",
        "tokens=12",
        "rerank=2",
        "momentum.queue=6",
        "teacher.steps=2",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

pub const VISUAL_SEMANTIC: Program = Program {
    file: env!("CARGO_BIN_EXE_visual-semantic"),
    command: &[],
    small: &[
        "data.batch_size=4",
        "model.image.image_size=16",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.text.vocabulary=300",
        "model.text.context=12",
        "model.text.words=4",
        "model.text.width=6",
        "model.embedding=6",
        "model.heads.hidden=5",
        "model.heads.output=4",
        "base.first.batch_size=4",
        "base.first.schedule.steps=2",
        "base.first.schedule.warmup_steps=0",
        "base.second.batch_size=4",
        "base.second.schedule.steps=2",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

pub const IT_CONTRAST: Program = Program {
    file: env!("CARGO_BIN_EXE_it-contrast"),
    command: &[],
    small: &[
        "data.batch_size=4",
        "model.feature=4",
        "model.bert.width=8",
        "model.bert.heads=1",
        "model.bert.layers=1",
        "model.bert.intermediate=16",
        "model.bert.vocabulary=300",
        "model.bert.context=12",
        "tokens=12",
        "negatives.clusters=2",
        "negatives.noise=3",
        "regions.boxes.per_image=2",
        "regions.tower.steps=2",
        "regions.tower.batch_size=4",
        "regions.tower.model.image.image_size=16",
        "regions.tower.model.image.patch_size=8",
        "regions.tower.model.image.width=8",
        "regions.tower.model.image.heads=1",
        "regions.tower.model.image.layers=1",
        "regions.tower.model.text.width=8",
        "regions.tower.model.text.heads=1",
        "regions.tower.model.text.layers=1",
        "regions.tower.model.embedding=4",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

pub const RADIOGRAPH: Program = Program {
    file: env!("CARGO_BIN_EXE_radiograph"),
    command: &[],
    small: &[
        "data.batch_size=4",
        "model.image.image_size=16",
        "model.image.blocks=[1,1]",
        "model.image.width=4",
        "model.bert.width=8",
        "model.bert.heads=1",
        "model.bert.layers=1",
        "model.bert.intermediate=16",
        "model.bert.vocabulary=300",
        "model.bert.context=12",
        "model.embedding=4",
        "tokens=12",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

/// From a small run of `radiograph`.
pub const FINETUNE: Program = Program {
    file: env!("CARGO_BIN_EXE_radiograph"),
    command: &["finetune"],
    small: &[
        "data.batch_size=4",
        "classes=2",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

/// From a small run of `radiograph`.
pub const LINEAR: Program = Program {
    command: &["linear"],
    ..FINETUNE
};

pub const SWEEP: Program = Program {
    command: &["sweep"],
    ..ALBEF
};

pub const ABLATION: Program = Program {
    command: &["ablation"],
    ..IT_CONTRAST
};

/// From a small run of `albef`.
pub const VQA: Program = Program {
    file: env!("CARGO_BIN_EXE_albef"),
    command: &["vqa"],
    small: &[
        "data.batch_size=4",
        "tokens=11",
        "validation_questions=4",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};

/// From a small run of `albef`.
pub const NLVR2: Program = Program {
    file: env!("CARGO_BIN_EXE_albef"),
    command: &["nlvr2"],
    small: &[
        "data.batch_size=4",
        "assignment.batch_size=4",
        "assignment.steps=2",
        "schedule.steps=2",
        "schedule.warmup_steps=0",
    ],
};
