//! Files, lists and arguments that are refused.

use std::fs;

use safetensors::tensor::Dtype;
use serde_json::json;

use super::files::{D, Files, N, Raw, Tensors, everything, floats, integers};

#[test]
fn bad_tensors_are_refused_naming_tensor_and_row() {
    let (good, values) = everything(Dtype::F32);
    let check = |change: &dyn Fn(&mut Tensors), expected: &[&str]| {
        let mut tensors = good.clone();
        change(&mut tensors);
        let message = Files::new(&tensors).refused(&[]);
        for part in expected {
            assert!(message.contains(part), "{part}: {message}");
        }
    };
    let put = |name: &str, raw: Raw| {
        let name = name.to_string();
        move |tensors: &mut Tensors| drop(tensors.insert(name.clone(), raw.clone()))
    };
    check(&|t| drop(t.remove("text")), &["`text` is missing", "image"]);
    check(&|t| drop(t.remove("image")), &["`image` is missing"]);
    let mut broken = values["text"].clone();
    broken[7 * D + 2] = f64::NAN;
    check(
        &put("text", floats(Dtype::F32, &[N, D], &broken)),
        &["`text` holds NaN in row 7"],
    );
    broken[7 * D + 2] = f64::INFINITY;
    check(
        &put("teacher_image", floats(Dtype::F32, &[N, D], &broken)),
        &["`teacher_image` holds inf in row 7"],
    );
    let shaped = |shape: &[usize]| floats(Dtype::F32, shape, &vec![0.5; shape.iter().product()]);
    for (name, shape, expected) in [
        (
            "image",
            &[N * D][..],
            "`image` has shape [60], it must be [N, D]",
        ),
        ("image", &[0, D], "`image` is empty"),
        (
            "text",
            &[N - 1, D],
            "`text` has shape [11, 5], it must be that of `image`, [12, 5]",
        ),
        ("text", &[N, D + 1], "`text` has shape [12, 6]"),
        (
            "teacher_text",
            &[N + 1, 3],
            "`teacher_text` has shape [13, 3], it must be [12, E]",
        ),
        (
            "teacher_text",
            &[N, 4],
            "`teacher_text` has width 4, `teacher_image` has 3",
        ),
        (
            "queue_image",
            &[4, D + 1],
            "`queue_image` has shape [4, 6], it must be [K, 5]",
        ),
        ("noise", &[4], "`noise` has shape [4], it must be [K, 5]"),
        (
            "hard_image",
            &[N, D],
            "`hard_image` has shape [12, 5], it must be [12, m, 5]",
        ),
        ("label", &[N], "`label` is F32, it must be of whole numbers"),
    ] {
        check(&put(name, shaped(shape)), &[expected]);
    }
    check(
        &put("image_id", integers(&[1, 2])),
        &["`image_id` has shape [2], it must be [12]"],
    );
    let mut whole = shaped(&[N, D]);
    whole.dtype = Dtype::I32;
    check(
        &put("image", whole),
        &["`image` is I32, it must be F16, BF16, F32 or F64"],
    );
}

#[test]
fn files_that_are_not_safetensors_are_refused() {
    let files = Files::new(&everything(Dtype::F32).0);
    let path = files.path("pairs.safetensors");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    assert!(files.refused(&[]).contains("it is cut off"));
    fs::write(&path, [&whole[..], b"xyz"].concat()).unwrap();
    assert!(
        files
            .refused(&[])
            .contains("it is followed by something else")
    );
    fs::write(&path, "").unwrap();
    assert!(files.refused(&[]).contains("pairs.safetensors is empty"));
    for content in [
        &b"{}"[..],
        b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
        b"\x02\0\0\0\0\0\0\0[]",
        b"\x11\0\0\0\0\0\0\0{\"a\":{},\"a\":{}} ",
    ] {
        fs::write(&path, content).unwrap();
        assert!(
            files
                .refused(&[])
                .contains("pairs.safetensors is not a safetensors file")
        );
    }
    fs::remove_file(&path).unwrap();
    assert!(
        files
            .refused(&[])
            .contains("pairs.safetensors: could not be opened")
    );
}

#[test]
fn bad_objective_lists_and_arguments_are_refused() {
    let (tensors, _) = everything(Dtype::F32);
    let plain = ["image", "text"].map(|name| (name.to_string(), tensors[name].clone()));
    let files = Files::new(&plain.into());
    for (list, expected) in [
        ("[", "objectives.json: this is not valid JSON"),
        (r#"[{"objective": "infonce"}]"#, "did you mean `info-nce`?"),
        (
            r#"[{"objective": "vse", "temperature": 1}]"#,
            "`vse` has no parameter `temperature`",
        ),
        (
            r#"[{"name": "b", "objective": "vse", "margin": -2}]"#,
            "objective `b`: vse: `margin` is -2, it must be finite and at least 0",
        ),
        (
            r#"[{"name": "c", "objective": "srcl"}]"#,
            "objective `c`: srcl needs `teacher_image` and `teacher_text`, or `alpha` = 0",
        ),
        (
            r#"[{
                "name": "d", "objective": "sum",
                "terms": [{"objective": "vse"}, {"objective": "srcl"}]
            }]"#,
            "objective `d`: srcl needs `teacher_image`",
        ),
        (
            r#"[{"objective": "con-vse", "hard_negatives": true}]"#,
            "con-vse needs `hard_image` and `hard_text`",
        ),
        (
            r#"[{"objective": "srcl", "alpha": 1, "schedule": {"alpha": {"from": 0, "to": 0}}}]"#,
            "srcl needs `teacher_image`",
        ),
        (
            r#"[{"objective": "srcl", "weight_temperature": 0}]"#,
            "srcl needs `teacher_image`",
        ),
        (
            r#"[{"objective": "vse", "margin": 1, "margin": 2}]"#,
            "`margin` is given twice",
        ),
        ("", "objectives.json: it is empty"),
    ] {
        fs::write(files.path("objectives.json"), list).unwrap();
        let message = files.refused(&["--objectives", "objectives.json"]);
        assert!(message.contains(expected), "{list}: {message}");
    }
    assert!(
        files
            .refused(&["--objectives", "none.json"])
            .contains("none.json")
    );
    assert!(
        files
            .refused(&["--device", "tpu"])
            .contains("no backend is called `tpu`")
    );
}

#[test]
fn names_that_are_long_or_many_are_cut_short() {
    let (tensors, _) = everything(Dtype::F32);
    let plain = ["image", "text"].map(|name| (name.to_string(), tensors[name].clone()));
    let mut tensors: Tensors = plain.into();
    let long = "x".repeat(100_000);
    tensors.insert(format!("{long}\x1b[31m"), integers(&[1]));
    for k in 0..1000 {
        tensors.insert(format!("\x1b{k}"), integers(&[]));
    }
    let files = Files::new(&tensors);
    let list = json!([{"name": long, "objective": "alignment"}]);
    fs::write(files.path("list.json"), list.to_string()).unwrap();
    let output = files.audit(&["--objectives", "list.json", "--json", "out.json"]);
    assert!(output.status.success());
    for text in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(text);
        assert!(!text.contains('\x1b') && text.len() < 2000, "{text}");
    }
    assert!(files.json("out.json")["objectives"][&long].is_object());
    for list in [
        json!([{"name": long, "objective": "vsee"}]),
        json!([{"name": [long.clone()], "objective": "vse"}]),
        json!([{"name": long, "objective": "vse"}, {"name": long, "objective": "vse"}]),
        json!([long]),
        json!([{long.clone(): 1}]),
    ] {
        fs::write(files.path("list.json"), list.to_string()).unwrap();
        let message = files.refused(&["--objectives", "list.json"]);
        let last = message.lines().last().unwrap();
        assert!(last.len() < 1000, "{message}");
    }
}

#[test]
fn a_list_may_begin_with_a_byte_order_mark() {
    let (tensors, _) = everything(Dtype::F32);
    let files = Files::new(&tensors);
    let list = "\u{feff}[{\"objective\": \"alignment\"}]";
    fs::write(files.path("list.json"), list).unwrap();
    files.succeed(&["--objectives", "list.json"]);
}
