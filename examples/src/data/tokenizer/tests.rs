use super::*;

const CAPTIONS: [&str; 6] = [
    "A large red circle is left of a small blue square.",
    "Under the tiny triangle lies a big yellow cross.",
    "Ein grüner Kreis über dem Dreieck",
    "紅い丸 и синий квадрат",
    "the greenish, reddish and bluish ones are larger",
    "",
];

fn trained(vocab_size: usize, context_length: usize) -> CaptionTokenizer {
    let config = TokenizerConfig {
        vocab_size,
        min_frequency: 1,
        context_length,
        ..TokenizerConfig::default()
    };
    CaptionTokenizer::train(CAPTIONS.iter(), &config).unwrap()
}

fn json(tokenizer: &CaptionTokenizer) -> String {
    tokenizer.inner.to_string(false).unwrap()
}

#[test]
fn the_same_captions_train_the_same_tokenizer() {
    let first = json(&trained(140, 32));
    for _ in 0..20 {
        assert_eq!(json(&trained(140, 32)), first);
    }
    let config = TokenizerConfig {
        vocab_size: 140,
        min_frequency: 1,
        context_length: 32,
        ..TokenizerConfig::default()
    };
    let reversed = CaptionTokenizer::train(CAPTIONS.iter().rev(), &config).unwrap();
    assert_eq!(json(&reversed), first);
}

#[test]
fn captions_come_back_in_lower_case_with_their_accents() {
    let tokenizer = trained(400, 64);
    for (caption, expected) in [
        ("A large RED circle", "a large red circle"),
        ("Grüner Kreis", "grüner kreis"),
        // A letter and a combining accent are the same as the accented letter.
        ("Gru\u{308}ner", "grüner"),
        ("синий", "синий"),
    ] {
        assert_eq!(
            tokenizer
                .decode(&tokenizer.encode(caption).unwrap())
                .unwrap(),
            expected
        );
    }
}

#[test]
fn special_tokens_have_fixed_ids_and_only_surround_captions() {
    let tokenizer = trained(140, 32);
    for (id, token) in SPECIAL_TOKENS.iter().enumerate() {
        assert_eq!(tokenizer.token_to_id(token), Some(id as u32));
    }
    assert_eq!(tokenizer.pad_id(), 0);
    let ids = tokenizer.encode("red").unwrap();
    assert_eq!((ids[0], *ids.last().unwrap()), (2, 3));
    assert!(ids[1..ids.len() - 1].iter().all(|&id| id > 4));
    // Pieces inside words are ordinary: they stay when special tokens are dropped.
    assert_eq!(
        tokenizer
            .decode(&tokenizer.encode("zqx red").unwrap())
            .unwrap(),
        "red"
    );
    assert_eq!(tokenizer.encode("").unwrap(), [2, 3]);
}

#[test]
fn unknown_characters_are_one_unknown_token() {
    assert_eq!(trained(140, 32).encode("🦀").unwrap(), [2, 1, 3]);
}

#[test]
fn long_captions_are_cut_and_keep_their_last_special_token() {
    let tokenizer = trained(400, 6);
    let ids = tokenizer.encode(CAPTIONS[0]).unwrap();
    assert_eq!((ids.len(), ids[0], ids[5]), (6, 2, 3));
}

#[test]
fn every_id_is_below_the_vocabulary_size() {
    let tokenizer = trained(140, 32);
    assert_eq!(tokenizer.vocab_size(), 140);
    assert!(
        CAPTIONS
            .iter()
            .flat_map(|caption| tokenizer.encode(caption).unwrap())
            .all(|id| id < 140)
    );
}

#[test]
fn rows_are_padded_to_a_multiple_of_eight_within_the_context() {
    let tokenizer = trained(140, 12);
    let padded = tokenizer
        .padding()
        .pad(&[vec![2, 9, 3], vec![2, 7, 8, 9, 3]]);
    assert_eq!(padded.length, 8);
    assert_eq!(padded.ids, [2, 9, 3, 0, 0, 0, 0, 0, 2, 7, 8, 9, 3, 0, 0, 0]);
    assert_eq!(padded.padding.iter().filter(|pad| **pad).count(), 8);
    assert!(
        padded.padding[3..8]
            .iter()
            .chain(&padded.padding[13..])
            .all(|pad| *pad)
    );
    assert_eq!(tokenizer.padding().pad(&[vec![2; 9]]).length, 12);
}

#[test]
fn a_saved_tokenizer_is_loaded_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    let tokenizer = trained(140, 32);
    tokenizer.save(&file).unwrap();
    let loaded = CaptionTokenizer::load(&file, 32).unwrap();
    for caption in CAPTIONS {
        assert_eq!(
            loaded.encode(caption).unwrap(),
            tokenizer.encode(caption).unwrap()
        );
    }
    assert_eq!(
        (loaded.vocab_size(), loaded.pad_id()),
        (tokenizer.vocab_size(), tokenizer.pad_id())
    );
    assert_eq!(
        CaptionTokenizer::load(&file, 4)
            .unwrap()
            .encode(CAPTIONS[0])
            .unwrap()
            .len(),
        4
    );
}

#[test]
fn a_tokenizer_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    std::fs::write(&file, "{").unwrap();
    let config = |vocab_size, context_length| TokenizerConfig {
        vocab_size,
        min_frequency: 1,
        context_length,
        ..TokenizerConfig::default()
    };
    for (result, expected) in [
        (CaptionTokenizer::load(&file, 32), "tokenizer.json"),
        (
            CaptionTokenizer::load(dir.path().join("none.json"), 32),
            "none.json",
        ),
        (
            CaptionTokenizer::train(["", "  "].iter(), &config(100, 32)),
            "no word",
        ),
        (
            CaptionTokenizer::train(CAPTIONS.iter(), &config(10, 32)),
            "a vocabulary of 10 tokens is too small",
        ),
        (
            CaptionTokenizer::train(CAPTIONS.iter(), &config(100, 2)),
            "a context of 2 tokens is too short",
        ),
    ] {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_word_of_a_million_characters_is_one_unknown_token() {
    let long = "x".repeat(1_000_000);
    let captions = ["a red circle", &long, "a blue square"];
    let started = std::time::Instant::now();
    let tokenizer =
        CaptionTokenizer::train(captions.into_iter(), &TokenizerConfig::default()).unwrap();
    assert_eq!(tokenizer.encode(&long).unwrap().len(), 3);
    // Were the time quadratic, it would be hours.
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn what_the_context_cuts_is_known() {
    let captions = ["a red circle", "a blue square left of a small red circle"];
    let config = TokenizerConfig {
        context_length: 8,
        ..TokenizerConfig::default()
    };
    let tokenizer = CaptionTokenizer::train(captions.into_iter(), &config).unwrap();
    assert!(!tokenizer.cuts("a").unwrap());
    assert!(tokenizer.cuts(captions[1]).unwrap());
}

#[test]
fn albef_reads_words_without_punctuation_after_cls_and_nothing_behind_them() {
    let captions = ["A red circle, left of a blue square!", "a small, red cross"];
    let config = |style| TokenizerConfig {
        min_frequency: 1,
        style,
        ..TokenizerConfig::default()
    };
    let train = |style| CaptionTokenizer::train(captions.iter(), &config(style)).unwrap();
    let (plain, albef) = (train(TokenStyle::default()), train(TokenStyle::albef()));
    let id = |tokenizer: &CaptionTokenizer, token| tokenizer.token_to_id(token);
    let first = |ids: &[u32]| Some(ids[0]);
    let ids = plain.encode(captions[0]).unwrap();
    assert_eq!(ids.last().copied(), id(&plain, "[SEP]"));
    let ids = albef.encode(captions[0]).unwrap();
    assert_eq!(first(&ids), id(&albef, "[CLS]"));
    assert!(
        ids[1..]
            .iter()
            .all(|&token| Some(token) != id(&albef, "[SEP]"))
    );
    assert_eq!(
        albef.decode(&ids).unwrap(),
        "a red circle left of a blue square"
    );
    assert!(id(&plain, ",").is_some() && id(&albef, ",").is_none());
    assert_eq!(albef.encode("?!").unwrap(), [id(&albef, "[CLS]").unwrap()]);

    // Nothing of the style is lost in a file but the words.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tokenizer.json");
    albef.save(&file).unwrap();
    let loaded = CaptionTokenizer::load(&file, 48).unwrap();
    let loaded = loaded.with_style(TokenStyle::albef()).unwrap();
    assert_eq!(loaded.encode(captions[0]).unwrap(), ids);

    let long = ["red"; 40].join(" ");
    assert!(albef.cuts(&long).unwrap() && !plain.cuts(&long).unwrap());
    assert_eq!(albef.encode(&long).unwrap().len(), 31);
}

/// What transformers and open_clip give: see the script in `tests/fixtures/tokenizers`.
#[test]
fn published_vocabularies_give_the_ids_of_their_own_tokenizers() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokenizers");
    let ids = fs::read(format!("{folder}/ids.json")).unwrap();
    let ids: serde_json::Value = serde_json::from_slice(&ids).unwrap();
    let captions = ids["captions"].as_array().unwrap();
    assert_eq!(captions.len(), 23);
    for (file, names) in [
        ("bpe_simple_vocab.txt", &["clip", "open_clip"][..]),
        ("vocab.txt", &["bert"]),
    ] {
        let tokenizer = CaptionTokenizer::load(format!("{folder}/{file}"), 77).unwrap();
        for name in names {
            let expected = captions.iter().filter(|row| row.get(name).is_some());
            let mut count = 0;
            for row in expected {
                let caption = row["caption"].as_str().unwrap();
                let expected: Vec<u32> = serde_json::from_value(row[name].clone()).unwrap();
                let actual = tokenizer.encode(caption).unwrap();
                assert_eq!(actual, expected, "{name}: {caption:?}");
                count += 1;
            }
            assert!(count > 15, "{name}: {count} captions");
        }
    }
}
