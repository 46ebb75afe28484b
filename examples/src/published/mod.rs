//! Weights that others have published: files of safetensors or PyTorch, whose layout follows from
//! the names of their tensors.

mod layout;
mod names;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use burn::store::burn_pack::Tensor as StoredTensor;
use burn::store::{ModuleStore, PytorchStore, SafetensorsStore};

use crate::panics::caught;
use crate::words::{list, shown};

pub use layout::{Key, Layout};

/// A file of published weights. What it holds is read when it is wanted, a tensor at a time.
pub struct Published {
    /// The tensors by their names, without what stands before the names of the layout.
    pub tensors: BTreeMap<String, StoredTensor>,
    /// How they are named.
    pub layout: Layout,
    /// The file.
    pub path: PathBuf,
}

impl Published {
    /// Opens a file of safetensors or PyTorch.
    ///
    /// # Errors
    ///
    /// If it is neither, is damaged, has code in it, or is of no known layout.
    pub fn open(path: &Path) -> Result<Self> {
        let tensors = tensors(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mark = Layout::MARKS.iter().find_map(|&(layout, mark, left_out)| {
            let mut names = tensors.keys().filter_map(|name| name.strip_suffix(mark));
            let prefix = names.find(|prefix| prefix.is_empty() || prefix.ends_with('.'))?;
            Some((layout, prefix.to_owned(), left_out))
        });
        let (layout, prefix, left_out) = mark.with_context(|| unknown(path, &tensors))?;
        // Beside a prefix there are things such as the state of an optimiser.
        let tensors = tensors.into_iter().filter_map(|(name, tensor)| {
            let name = name.strip_prefix(&prefix)?;
            Some((of_today(format!("{left_out}{name}")), tensor))
        });
        Ok(Self {
            tensors: tensors.collect(),
            layout,
            path: path.to_owned(),
        })
    }

    /// The shape of the tensor that has the parameter `path`.
    ///
    /// # Errors
    ///
    /// If there is no such tensor.
    pub fn shape(&self, path: &str) -> Result<Vec<usize>> {
        let Key { name, .. } = self.layout.key(path, 0);
        let tensor = self.tensors.get(&name);
        let tensor = tensor.with_context(|| format!("{} lacks {name}", self.path.display()))?;
        Ok(tensor.shape.to_vec())
    }

    /// Whether there is a tensor for the parameter `path`.
    pub fn has(&self, path: &str) -> bool {
        self.tensors.contains_key(&self.layout.key(path, 0).name)
    }
}

/// The name that a tensor has in today's files: BERT's first ones have others for its norms.
fn of_today(name: String) -> String {
    for (old, new) in [("gamma", "weight"), ("beta", "bias")] {
        let start = name.strip_suffix(old);
        if let Some(start) = start.filter(|start| start.ends_with("LayerNorm.")) {
            return format!("{start}{new}");
        }
    }
    name
}

/// The tensors of a file by their names.
fn tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>> {
    // A header of safetensors is JSON, behind its length in eight bytes.
    let mut start = [0; 9];
    let mut file = File::open(path)?;
    ensure!(file.metadata()?.is_file(), "it is no file");
    let is_long_enough = file.read_exact(&mut start).is_ok();
    let is_safetensors = is_long_enough && start[8] == b'{';
    // The readers check what a file claims; one that is hostile must not end the program.
    let read = || -> Result<_> {
        if is_safetensors {
            let mut store = SafetensorsStore::from_file(path);
            let all = store.get_all_tensors();
            Ok(all.map_err(|error| anyhow!("{error}"))?.clone())
        } else {
            let mut store = PytorchStore::from_file(path).map_indices_contiguous(false);
            let all = store.get_all_tensors();
            let all = all.map_err(|error| {
                let error = error.to_string();
                let advice = if error.contains("__torch__") {
                    ". It is a program of TorchScript: save its weights, \
                     torch.save(torch.jit.load(FILE).state_dict(), NEW)"
                } else {
                    ""
                };
                anyhow!("it is no file of safetensors, and as one of PyTorch: {error}{advice}")
            });
            Ok(all?.clone())
        }
    };
    let all = caught(read).context("the file is damaged")??;
    ensure!(!all.is_empty(), "there are no tensors in it");
    Ok(all)
}

fn unknown(path: &Path, tensors: &BTreeMap<String, StoredTensor>) -> String {
    let names: Vec<_> = tensors.keys().map(|name| shown(name)).collect();
    let mut layouts: Vec<_> = Layout::MARKS
        .iter()
        .map(|(layout, ..)| layout.name())
        .collect();
    layouts.dedup();
    format!(
        "{} is of no layout that is known here, which are {}; it has the tensors {}",
        path.display(),
        layouts.join(", "),
        list(&names)
    )
}
