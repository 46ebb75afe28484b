//! Serialises paths as text. What is not Unicode is replaced, so that a name of a file cannot keep
//! a report from being written.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

pub fn paths<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.to_string_lossy()))
}

pub fn path<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    path.to_string_lossy().serialize(serializer)
}

pub fn path_or_null<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_deref()
        .map(Path::to_string_lossy)
        .serialize(serializer)
}

#[cfg(all(test, unix))]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use serde_json::json;

    use super::*;

    #[derive(Serialize)]
    struct Files {
        #[serde(serialize_with = "paths")]
        all: Vec<PathBuf>,
        #[serde(serialize_with = "path_or_null")]
        one: Option<PathBuf>,
        #[serde(serialize_with = "path_or_null")]
        none: Option<PathBuf>,
    }

    #[test]
    fn a_name_that_is_not_unicode_is_written_with_a_replacement() {
        let name = PathBuf::from(OsStr::from_bytes(b"a\xff.png"));
        let files = Files {
            all: vec!["b.png".into(), name.clone()],
            one: Some(name),
            none: None,
        };
        let text = "a\u{fffd}.png";
        assert_eq!(
            serde_json::to_value(&files).unwrap(),
            json!({"all": ["b.png", text], "one": text, "none": null})
        );
    }
}
