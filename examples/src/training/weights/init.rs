//! Which weights a run starts from, and how they come into its model.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::load::Filled;
use super::{Weights, tokenizer_beside};
use crate::published::{Layout, Published};
use crate::training::folder::TOKENIZER_FILE;
use crate::training::system::{SystemConfig, Towers};

/// The weights that a run starts from: of one source, or of several, each of which gives a part.
/// Where two give the same parameter, the later one does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitConfig(Vec<InitSource>);

/// Where weights come from that a run starts from, and what they are for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitSource {
    /// The folder of the run that has them, whose last checkpoint is read; or a file of
    /// [`Published`] weights.
    pub run: PathBuf,
    /// The part of that run's model to take, by the path of a module such as `model.image`, which
    /// starts the module of the same path; null for all of it. Of a file, the module that all of it
    /// starts, or that part of it which is the same tower.
    #[serde(default)]
    pub path: Option<String>,
    /// Regular expressions: parameters of the new model whose paths match one may be new.
    #[serde(default)]
    pub new: Vec<String>,
    /// Regular expressions: parameters of the earlier model whose paths match one may stay unused.
    #[serde(default)]
    pub unused: Vec<String>,
}

impl FromStr for InitSource {
    type Err = anyhow::Error;

    /// `RUN`, or `RUN:PATH`.
    fn from_str(text: &str) -> Result<Self> {
        let (run, path) = match text.rsplit_once(':') {
            // A colon in the name of a folder is none of ours.
            Some((run, path)) if !path.contains(['/', '\\']) && !Path::new(text).exists() => {
                (run, Some(path.to_string()))
            }
            _ => (text, None),
        };
        ensure!(!run.is_empty(), "--init {text}: there is no run before `:`");
        Ok(Self {
            path,
            ..Self::all_of(PathBuf::from(run))
        })
    }
}

impl fmt::Display for InitSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.run.display())?;
        self.path.iter().try_for_each(|path| write!(f, ":{path}"))
    }
}

impl InitSource {
    /// All weights of the run in that folder, or of that file.
    pub fn all_of(run: PathBuf) -> Self {
        Self {
            run,
            path: None,
            new: Vec::new(),
            unused: Vec::new(),
        }
    }

    /// Those for the module `path`.
    pub fn part_of(run: PathBuf, path: &str) -> Self {
        Self {
            path: Some(path.to_string()),
            ..Self::all_of(run)
        }
    }

    /// Whether they are a file of published weights.
    pub fn is_published(&self) -> bool {
        self.run.is_file()
    }

    /// Whether they are published and have embeddings of tokens for a system with these towers.
    fn reads_tokens(&self, towers: Towers) -> bool {
        self.is_published() && (self.path.is_none() || self.path.as_deref() == towers.text)
    }

    /// A model with these weights, and what they gave to it. Parameters that match `new` need not
    /// be among them. What the settings had to be for all of them is added to `different`.
    fn fill<C: SystemConfig>(
        &self,
        model: C::System,
        config: &C,
        new: &[String],
        different: &mut Vec<String>,
    ) -> Result<(C::System, Filled)> {
        let rules = config.rules().unused.iter();
        let unused: Vec<_> = self.unused.iter().map(String::as_str).collect();
        let unused: Vec<_> = unused.into_iter().chain(rules.copied()).collect();
        if !self.is_published() {
            let weights = Weights::of_run(&self.run)?;
            let weights = match &self.path {
                None => weights,
                Some(path) => weights.below(path)?,
            };
            let weights = weights.renamed(|path| config.renamed(path));
            return weights.fill(model, new, &unused);
        }
        let published = Published::open(&self.run)?;
        let path = self.path.as_deref().unwrap_or_default();
        let parts = parts(&published, path, C::towers());
        if !path.is_empty() {
            different.extend(differing(&published, path, &parts[0][1], config)?);
        }
        Weights::of_parts(published, parts, config.text_layers()).fill(model, new, &unused)
    }
}

/// Which modules of a model a published file starts, and what they are to its layout, for a file
/// that is to start the module `path`.
fn parts(published: &Published, path: &str, towers: Towers) -> Vec<[String; 2]> {
    let pair = |ours: &str, theirs: &str| [ours, theirs].map(str::to_string);
    let is = |tower: Option<&str>| tower == Some(path);
    // What a layout calls the image encoder, the text encoder and its language head.
    let [image, text, words] = match published.layout {
        layout if layout.is_clip() => ["image", "text", ""],
        Layout::Albef => ["model.image", "model.bert", "model.language_head"],
        Layout::Bert => ["", "", "head"],
        _ => [""; 3],
    };
    if is(towers.image) {
        return vec![pair(path, image)];
    }
    if is(towers.text) {
        let has_words = !words.is_empty() && published.has(&format!("{words}.bias"));
        let head = towers.language_head.filter(|_| has_words);
        let head = head.map(|path| pair(path, words));
        return std::iter::once(pair(path, text)).chain(head).collect();
    }
    vec![pair(path, "")]
}

/// What the settings of the module `path` have to be for published weights, where they are not:
/// `--set key=value` of each. `part` is what it is to their layout.
///
/// # Errors
///
/// If the weights would come into the module all the same, and mean something else there.
fn differing<C: SystemConfig>(
    published: &Published,
    path: &str,
    part: &str,
    config: &C,
) -> Result<Vec<String>> {
    const SILENT: [&str; 4] = ["heads", "activation", "pooling", "layout"];
    let all = serde_json::to_value(config)?;
    let inner = path.strip_prefix("model.").unwrap_or(path);
    let keys = [path.to_string(), format!("model.{path}"), inner.to_string()];
    let group = keys.iter().find_map(|key| {
        let group = all.pointer(&format!("/{}", key.replace('.', "/")))?;
        Some((key, group.as_object()?))
    });
    let Some((key, group)) = group else {
        return Ok(Vec::new());
    };
    let theirs = published.settings(part)?;
    let differs = |name: &String, value: &Value| group.get(name).is_some_and(|own| own != value);
    let theirs = theirs.iter().filter(|(name, value)| differs(name, value));
    let (names, pairs): (Vec<_>, Vec<_>) = theirs
        .map(|(name, value)| {
            let value = value.as_str().map_or(value.to_string(), str::to_string);
            (name, format!("--set {key}.{name}={value}"))
        })
        .unzip();
    ensure!(
        !names.iter().any(|name| SILENT.contains(&name.as_str())),
        "the weights are those of another model, which is {}",
        pairs.join(" ")
    );
    Ok(pairs)
}

impl InitConfig {
    /// All weights of the run in that folder.
    pub fn all_of(run: PathBuf) -> Self {
        InitSource::all_of(run).into()
    }

    /// The weights of several sources; `None` of none.
    ///
    /// # Errors
    ///
    /// If two of them are for all of the model.
    pub fn of(sources: Vec<InitSource>) -> Result<Option<Self>> {
        let whole = sources.iter().filter(|source| source.path.is_none());
        let whole: Vec<_> = whole.map(ToString::to_string).collect();
        ensure!(
            whole.len() < 2,
            "--init {}: one of them starts all of the model, and nothing is left for the other; \
             name the module that it is for, FILE:PATH",
            whole.join(" --init ")
        );
        Ok((!sources.is_empty()).then_some(Self(sources)))
    }

    /// Where they come from: one source at least.
    pub fn sources(&self) -> &[InitSource] {
        &self.0
    }

    /// The runs and files that they come from.
    pub fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.0.iter_mut().map(|source| &mut source.run)
    }

    /// The source, where it is a single one.
    pub fn single(&self) -> Option<&InitSource> {
        match &self.0[..] {
            [source] => Some(source),
            _ => None,
        }
    }

    /// The published source, if there is one, whose embeddings of tokens a system with these towers
    /// takes: its tokenizer has to be theirs.
    pub(crate) fn of_tokens(&self, towers: Towers) -> Option<&InitSource> {
        let mut sources = self.0.iter().rev();
        sources.find(|source| source.reads_tokens(towers))
    }

    /// The tokenizer that the weights were trained with, if it is known: one beside the published
    /// file that reads texts, or that of a run.
    pub(crate) fn tokenizer(&self, towers: Towers) -> Option<PathBuf> {
        if let Some(source) = self.of_tokens(towers) {
            return tokenizer_beside(&source.run);
        }
        let run = self.0.iter().find(|source| !source.is_published())?;
        Some(run.run.join(TOKENIZER_FILE))
    }

    /// A model that starts from these weights.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not fit the model.
    pub(in crate::training) fn start<C: SystemConfig>(
        &self,
        model: C::System,
        config: &C,
    ) -> Result<C::System> {
        let mut different = Vec::new();
        self.load(model, config, &mut different).map_err(|error| {
            if different.is_empty() {
                return error;
            }
            anyhow!(
                "{error:#}. The model that the weights are of is {}",
                different.join(" ")
            )
        })
    }

    /// Likewise; what the settings had to be for all of the weights is added to `different`.
    fn load<C: SystemConfig>(
        &self,
        mut model: C::System,
        config: &C,
        different: &mut Vec<String>,
    ) -> Result<C::System> {
        let new = self.0.iter().flat_map(|source| source.new.clone());
        let rules = config.rules().new.iter().map(ToString::to_string);
        let mut new: Vec<_> = new.chain(rules).collect();
        if self.0.iter().any(InitSource::is_published) {
            // Nothing is published that has an objective's parameters but the logit scale.
            new.push(r"(^|\.)objective\.".to_string());
        }
        let mut all = Vec::new();
        for source in &self.0 {
            let filled = source.fill(model, config, &new, different);
            let (with_weights, filled) = filled.with_context(|| format!("--init {source}"))?;
            model = with_weights;
            all.push(filled);
        }
        Filled::check(&all).with_context(|| format!("--init {self}"))?;
        Ok(model)
    }
}

impl From<InitSource> for InitConfig {
    fn from(source: InitSource) -> Self {
        Self(vec![source])
    }
}

impl FromStr for InitConfig {
    type Err = anyhow::Error;

    /// One source.
    fn from_str(text: &str) -> Result<Self> {
        Ok(text.parse::<InitSource>()?.into())
    }
}

impl fmt::Display for InitConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&sources.join(" --init "))
    }
}

/// One source stands for itself, several in a list.
impl Serialize for InitConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.single() {
            Some(source) => source.serialize(serializer),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for InitConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Vec<InitSource>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("what weights come from, or a list of that")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let source = InitSource::deserialize(MapAccessDeserializer::new(map))?;
                Ok(vec![source])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list))
            }
        }

        let sources = deserializer.deserialize_any(OneOrSeveral)?;
        let config = Self::of(sources).map_err(D::Error::custom)?;
        config.ok_or_else(|| D::Error::custom("an empty list; null starts from new weights"))
    }
}
