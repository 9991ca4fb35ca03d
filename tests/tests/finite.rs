//! Keys and values that f16 cannot hold, and weights that make no numbers: the first are held in f32, the second are an error
//! that names the layer; neither gives a wrong answer.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use trit_format::container::{Digest, Header, SectionKind};
use trit_format::manifest::Manifest;
use trit_runtime::generate::generate;
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{
    KvType, LoadOptions, LogitsRequest, Model, Place, RuntimeError, SavedSequences, SequenceOptions, Session,
    SessionOptions, Tuning,
};
use trit_tests::ways::endless;
use trit_tests::workbench::{compile, fixture, run, scratch, trit_run};

/// One layer, keys beyond 65504 from the first token on.
fn overflowing() -> &'static Path {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| compile(&fixture("kv-overflow"), "kv-overflow"));
    &BUNDLE
}

/// Tokens of [`mixed`] whose keys f16 holds, and the one whose it does not.
const SMALL: std::ops::Range<u32> = 1..60;
const LARGE: u32 = 0;

/// The same with embeddings so small that the norm before the layer leaves keys within f16, but for one token.
fn mixed() -> &'static Path {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| {
        let tensor = |name: &str, values: &mut [u8]| {
            if name == "model.embed_tokens.weight" {
                let row = values.len() / 64;
                for (id, row) in values.chunks_exact_mut(row).enumerate() {
                    if id as u32 != LARGE {
                        scale_bf16(row, 1e-5);
                    }
                }
            }
        };
        compile(&changed("kv-mixed", tensor), "kv-mixed")
    });
    &BUNDLE
}

/// Multiplies values, which need not be rounded well here.
fn scale_bf16(bytes: &mut [u8], factor: f32) {
    for value in bytes.as_chunks_mut::<2>().0 {
        let scaled = f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16) * factor;
        *value = ((scaled.to_bits() >> 16) as u16).to_le_bytes();
    }
}

/// A copy of the fixture with its tensors changed.
fn changed(name: &str, change: impl Fn(&str, &mut [u8])) -> PathBuf {
    let (from, to) = (fixture("kv-overflow"), scratch().join(format!("checkpoint-{name}")));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let mut file = std::fs::read(from.join("model.safetensors")).unwrap();
    let start = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..start]).unwrap();
    for (tensor, entry) in header.as_object().unwrap() {
        if let Some(at) = entry["data_offsets"].as_array() {
            let [from, to] = [0, 1].map(|i| start + at[i].as_u64().unwrap() as usize);
            change(tensor, &mut file[from..to]);
        }
    }
    std::fs::write(to.join("model.safetensors"), file).unwrap();
    to
}

fn load(bundle: &Path) -> Arc<Model> {
    let options = LoadOptions { tuning: Tuning::Off, ..LoadOptions::default() };
    Model::load(bundle, &options).unwrap()
}

fn session(model: &Arc<Model>, kv: KvType, threads: usize, chunk: usize) -> Session {
    let options = SessionOptions {
        threads: Some(threads),
        oversubscribe: true,
        kv,
        chunk,
        ..SessionOptions::default()
    };
    Session::new(model.clone(), options).unwrap()
}

/// The logits after each token, as bits.
fn logits(session: &mut Session, ids: &[u32]) -> Vec<Vec<u32>> {
    let mut rows = Vec::new();
    let mut each = |_: usize, logits: &[f32]| {
        assert!(logits.iter().all(|l| l.is_finite()));
        rows.push(logits.iter().map(|l| l.to_bits()).collect());
    };
    session.forward_all(ids, &mut each).unwrap();
    rows
}

#[test]
fn from_the_first_token_on_f16_is_f32() {
    let model = load(overflowing());
    let ids: Vec<u32> = (0..40).map(|i| i * 7 % 64).collect();
    let expected = logits(&mut session(&model, KvType::F32, 1, 64), &ids);
    for (threads, chunk) in [(1, 64), (2, 16), (3, 7), (1, 1)] {
        let mut session = session(&model, KvType::F16, threads, chunk);
        assert_eq!(logits(&mut session, &ids), expected);
        assert_eq!((session.kv(), session.widened()), (KvType::F32, Some(0)));
    }
    // int8 has a scale for each key, which holds them.
    let mut int8 = session(&model, KvType::Int8, 2, 16);
    logits(&mut int8, &ids);
    assert_eq!((int8.kv(), int8.widened()), (KvType::Int8, None));
}

/// Where the large token stands decides, not how the text is cut or who runs it.
#[test]
fn the_position_decides_where_f32_begins() {
    let model = load(mixed());
    let small: Vec<u32> = SMALL.cycle().step_by(7).take(50).collect();
    let mut before = session(&model, KvType::F16, 1, 64);
    let f16 = logits(&mut before, &small);
    assert_eq!((before.kv(), before.widened()), (KvType::F16, None), "small keys fit");
    assert_ne!(f16, logits(&mut session(&model, KvType::F32, 1, 64), &small), "f16 rounds");
    let mut ids = small.clone();
    ids[23] = LARGE;
    let mut one = session(&model, KvType::F16, 1, 1);
    let expected = logits(&mut one, &ids);
    assert_eq!((one.kv(), one.widened()), (KvType::F32, Some(23)));
    assert_eq!(expected[..23], f16[..23]);
    for (threads, chunk) in [(1, 64), (2, 24), (2, 23), (3, 16), (1, 7)] {
        let mut session = session(&model, KvType::F16, threads, chunk);
        assert_eq!(logits(&mut session, &ids), expected, "{threads} threads, chunks of {chunk}");
        assert_eq!((session.kv(), session.widened()), (KvType::F32, Some(23)));
        // As a prompt, and then token by token.
        for cut in [1, 20, 23, 24, 30] {
            let mut session = self::session(&model, KvType::F16, threads, chunk);
            let bits = |logits: &[f32]| logits.iter().map(|l| l.to_bits()).collect::<Vec<u32>>();
            assert_eq!(bits(session.prefill(&ids[..cut]).unwrap()), expected[cut - 1], "prompt of {cut}");
            for (i, &id) in ids.iter().enumerate().skip(cut) {
                assert_eq!(bits(session.decode(id).unwrap()), expected[i], "{i} after a prompt of {cut}");
            }
            assert_eq!(session.widened(), Some(23));
        }
    }
}

/// A cache that was widened comes back from a file as it was. A text that ends before that is not taken from it, because
/// from scratch it would have a cache of f16.
#[test]
fn a_wider_cache_is_saved_and_restored() {
    let (model, folder) = (load(mixed()), tempfile::tempdir().unwrap());
    let path = folder.path().join("saved");
    let mut ids: Vec<u32> = SMALL.cycle().step_by(7).take(50).collect();
    ids[23] = LARGE;
    let expected = logits(&mut session(&model, KvType::F16, 1, 64), &ids);
    let mut original = session(&model, KvType::F16, 1, 64);
    original.prefill(&ids[..40]).unwrap();
    original.save(&path).unwrap();
    for (text, known) in [(50, 40), (40, 39), (25, 24), (24, 0), (23, 0)] {
        let mut restored = session(&model, KvType::F16, 2, 16);
        assert_eq!(restored.restore(&path, &ids[..text]).unwrap(), known);
        assert_eq!(restored.widened(), (known > 0).then_some(23));
        assert_eq!(logits(&mut restored, &ids[known..]), expected[known..], "from {known} on");
    }
    // Where the text was taken back to before that, the cache stays wide, and so does the file.
    original.truncate(10);
    original.save(&path).unwrap();
    assert_eq!(session(&model, KvType::F16, 1, 16).restore(&path, &ids).unwrap(), 0);
    let whole = SavedSequences::open(&path, &model).unwrap();
    let restored = whole.restore(0, 10, SequenceOptions::default()).unwrap();
    assert_eq!((restored.kv(), restored.widened()), (original.kv(), Some(23)));
    assert!(session(&model, KvType::F32, 1, 16).restore_from(&whole, &ids).is_ok_and(|known| known == 0));
}

/// A drafted token that is wrong leaves nothing, not even a wider cache.
#[test]
fn drafts_change_neither_tokens_nor_cache() {
    let model = load(mixed());
    // The text had the large token after the last three, so that it is drafted.
    for prompt in [vec![1, 2, 3, LARGE, 5, 1, 2, 3], vec![1, 2, 3, 4, 5, 1, 2, 3]] {
        let mut results = Vec::new();
        for speculate in [false, true] {
            let mut session = session(&model, KvType::F16, 2, 16);
            let mut sampler = Sampler::new(SamplerOptions::default());
            let options = endless(60, speculate);
            let each = &mut |_| ControlFlow::Continue(());
            let generation = generate(&mut session, &prompt, &mut sampler, &options, each).unwrap();
            results.push((generation.ids, session.widened(), session.tokens().to_vec()));
        }
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn commands_say_once_that_the_cache_became_wider() {
    let bundle = overflowing().to_str().unwrap();
    let file = scratch().join("kv-overflow.json");
    std::fs::write(&file, r#"{"ids":[1,2,3,4,5,6],"window":3}"#).unwrap();
    let (ids, out) = (file.to_str().unwrap(), scratch().join("kv-overflow.safetensors"));
    for args in [
        &[bundle, "--ids", "1,2,3", "-n", "4", "--ignore-eos", "--temp", "0"][..],
        &["logits", bundle, "--ids", "1,2,3", "-o", out.to_str().unwrap()],
        &["perplexity", bundle, "--ids", ids],
        &["bench", bundle, "-p", "4", "-n", "2", "-r", "1", "-t", "1,2"],
    ] {
        let plain = run(trit_run(args));
        assert_eq!(plain.code, Some(0), "{}", plain.err);
        assert_eq!(plain.err.matches("too large for f16").count(), 1, "{args:?}: {}", plain.err);
        let wide = run(trit_run(&[args, &["--kv", "f32"]].concat()));
        assert_eq!((wide.code, wide.err.contains("too large")), (Some(0), false), "{}", wide.err);
        if args[0] != "bench" {
            assert_eq!(wide.out, plain.out);
        }
    }
    let report = run(trit_run(&["selftest", bundle])).ok();
    assert!(report.contains("golden 0  kv f32: "), "{report}");
    assert!(report.contains("golden 0  kv f16, f32 from position 0 on: "), "{report}");
    let report = run(trit_run(&["selftest", bundle, "--kv", "int8"])).ok();
    assert!(report.contains("golden 0  kv int8: "), "{report}");
}

/// A model of several layers.
fn deep() -> &'static Path {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| compile(&fixture("llama-bitlinear"), "finite-deep"));
    &BUNDLE
}

/// A copy of [`deep`] with NaN as the first value of row `row` of a tensor.
fn damaged(tensor: &str, row: usize) -> PathBuf {
    let mut file = std::fs::read(deep()).unwrap();
    let mut header = Header::parse(&file).unwrap();
    let range = |header: &Header, kind| header.section(kind).unwrap().range();
    let manifest = Manifest::decode(&file[range(&header, SectionKind::Manifest)]).unwrap();
    let tensor = manifest.tensors.iter().find(|t| t.name == tensor).unwrap();
    let size = tensor.dtype.size();
    let columns: u64 = tensor.shape[1..].iter().product();
    let tensors = range(&header, SectionKind::Tensors);
    let at = tensors.start + tensor.offset as usize + row * columns as usize * size;
    // All bits set is NaN in every float type.
    file[at..at + size].fill(0xff);
    let digest = Digest::of(&file[tensors]);
    header.sections.iter_mut().find(|s| s.kind == SectionKind::Tensors).unwrap().digest = digest;
    let bytes = header.encode();
    file[..bytes.len()].copy_from_slice(&bytes);
    let path = scratch().join(format!("finite-{}-{row}.trit", tensor.name));
    std::fs::write(&path, file).unwrap();
    path
}

fn names() -> (String, String, String) {
    let manifest = load(deep()).manifest().clone();
    let name = |part: &str| manifest.tensors.iter().find(|t| t.name.contains(part)).unwrap().name.clone();
    (name("embed_tokens"), name("layers.1.input_layernorm"), name("model.norm"))
}

#[test]
fn what_makes_no_numbers_is_named() {
    let (embedding, layer, norm) = names();
    for (bundle, place, position) in [
        (damaged(&layer, 0), Place::Layer(1), 0),
        (damaged(&norm, 0), Place::Head, 3),
        (damaged(&embedding, 5), Place::Embedding, 2),
    ] {
        let model = load(&bundle);
        for (threads, chunk) in [(1, 64), (2, 2), (1, 1)] {
            let mut session = session(&model, KvType::F16, threads, chunk);
            let ids = [1, 2, 5, 7];
            let error = session.prefill(&ids).unwrap_err();
            let RuntimeError::NotFinite { place: found, position: at, token } = error else {
                panic!("{error}")
            };
            assert_eq!((found, at, token), (place, position, ids[position]), "{}", bundle.display());
            assert_eq!((is_not_finite(&session.prefill(&ids)), session.position()), (true, 0));
            let largest = [LogitsRequest::largest()];
            assert_eq!((is_not_finite(&session.advance(&ids, &largest)), session.position()), (true, 0));
            let mut before = 0;
            assert!(is_not_finite(&session.forward_all(&ids, &mut |_, _| before += 1)));
            assert_eq!(before, if place == Place::Head { 0 } else { position });
            if place == Place::Embedding {
                // Without that token all is well, and what failed left nothing.
                session.prefill(&[1, 2]).unwrap();
                assert!(is_not_finite(&session.decode(5)));
                assert_eq!(session.tokens(), [1, 2]);
                session.decode(7).unwrap();
            }
        }
    }
}

fn is_not_finite<T>(result: &Result<T, RuntimeError>) -> bool {
    matches!(result, Err(RuntimeError::NotFinite { .. }))
}

/// Activations that outgrow f32, which no weight shows by itself.
#[test]
fn activations_beyond_f32_are_an_error() {
    let huge = |name: &str, bytes: &mut [u8]| {
        if name.ends_with("mlp.up_proj.weight_scale") {
            scale_bf16(bytes, 1e38);
        }
    };
    let tritc = trit_tests::workbench::tritc(&["compile", "--target", "all", "-o"]);
    let mut command = tritc;
    let bundle = scratch().join("finite-huge.trit");
    command.arg(&bundle).arg(changed("finite-huge", huge));
    let compiled = run(command);
    if compiled.code != Some(0) {
        // The compiler's own forward pass found it first.
        return compiled.fails(3, &["finite"]);
    }
    let ran = run(trit_run(&[bundle.to_str().unwrap(), "--ids", "1,2,3", "-n", "2"]));
    ran.fails(3, &["layer 0"]);
    // No golden could be made of it.
    run(trit_run(&["selftest", bundle.to_str().unwrap()])).fails(3, &["layer 0"]);
}

#[test]
fn every_command_says_which_layer() {
    let bundle = damaged(&names().1, 0);
    let bundle = bundle.to_str().unwrap();
    let file = scratch().join("finite.json");
    std::fs::write(&file, r#"{"ids":[1,2,3,4,5,6],"window":3}"#).unwrap();
    let out = scratch().join("finite.safetensors");
    let _ = std::fs::remove_file(&out);
    for args in [
        &[bundle, "--ids", "1,2,3", "-n", "4"][..],
        &[bundle, "--ids", "1,2,3", "-n", "4", "--temp", "0.7", "--json"],
        &["logits", bundle, "--ids", "1,2,3", "-o", out.to_str().unwrap()],
        &["perplexity", bundle, "--ids", file.to_str().unwrap()],
        &["bench", bundle, "-p", "4", "-n", "2", "-r", "1"],
        &["selftest", bundle],
    ] {
        run(trit_run(args)).fails(3, &["layer 1", "no number", bundle]);
    }
    assert!(!out.exists());
}
