use std::fs;

use super::*;

fn refused(content: &[u8], says: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    fs::write(&file, content).unwrap();
    let error = Published::open(&file).err().expect("it is refused");
    let error = format!("{error:#}");
    for part in says {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

#[test]
fn what_is_no_file_of_weights_is_refused() {
    refused(b"", &["cannot read"]);
    refused(b"{}", &["cannot read", "no file of safetensors"]);
    refused(b"a text about cats and dogs\n", &["no file of safetensors"]);
    refused(&[0; 64], &["cannot read"]);
    refused(b"PK\x03\x04 not a zip archive at all", &["cannot read"]);
    let folder = tempfile::tempdir().unwrap();
    assert!(Published::open(folder.path()).is_err());
    assert!(Published::open(&folder.path().join("absent")).is_err());
}

#[test]
fn headers_that_lie_are_refused() {
    let tensor = |shape: &str, end: u64| {
        let info = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[0,{end}]}}"#);
        format!(r#"{{"visual.class_embedding":{info}}}"#)
    };
    for (shape, end, data) in [
        ("[9223372036854775808]", 8, 8),
        ("[4611686018427387904, 4]", 8, 8),
        ("[3]", 8, 8),
        ("[2]", 8, 4),
        ("[2]", u64::MAX, 8),
        ("[-1]", 8, 8),
    ] {
        refused(&safetensors(&tensor(shape, end), data), &["cannot read"]);
    }
    let mut file = safetensors(&tensor("[2]", 8), 8);
    file[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(&file, &["cannot read"]);
    refused(&safetensors("{}", 0), &["no tensors"]);
}

#[test]
fn a_pickle_with_code_in_it_is_refused_and_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let call = format!("cos\nsystem\n(S'touch {}'\ntR.", made.display());
    refused(call.as_bytes(), &["cannot read"]);
    refused(&[b"\x80\x02", call.as_bytes()].concat(), &["cannot read"]);
    assert!(!made.exists());
}

#[test]
fn other_layouts_are_refused_with_the_names_that_are_there() {
    let header = r#"{"decoder.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    refused(
        &safetensors(header, 8),
        &["CLIP (open_clip)", "BERT", "decoder.weight"],
    );
}

#[test]
fn every_cut_of_a_file_is_refused_or_opens() {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/fixtures/models/clip_open.safetensors"
    );
    let whole = fs::read(file).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut");
    for length in (0..whole.len()).step_by(997) {
        fs::write(&file, &whole[..length]).unwrap();
        assert!(Published::open(&file).is_err(), "{length} bytes");
    }
}
