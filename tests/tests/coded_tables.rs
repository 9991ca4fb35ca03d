//! Tables of int8 codes, made of every GGUF type that stores floats in blocks of integers: the same bits as a table of F32
//! with the same values, in embeddings, heads and linear layers, in fewer bytes.

#[expect(dead_code, reason = "the compiler's own tests use more of it")]
#[path = "../../compiler/tests/gguf/writer.rs"]
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use trit_format::container::SectionKind;
use trit_format::manifest::Tensor;
use trit_format::plan::{DType, Step};
use trit_runtime::{KernelChoice, Logits, LogitsRequest, SequenceOptions};
use trit_tests::engines::{Random, engine, load};
use trit_tests::ways::{all_logits, ways};
use trit_tests::workbench::{run, trit_run};
use tritc::bundle::Bundle;
use tritc::compile::compile;
use tritc::compile::targets::{TargetChoice, resolve};
use tritc::inspect;
use tritc::inspect::verify::verify;
use tritc::model::{Dense, Matrix, Mixer, Model};
use tritc::progress::Silent;
use writer::{File, q2_0, trits};

/// Rows of every type end at a multiple of 64 bytes, so that sizes are the bits of a weight.
const HIDDEN: usize = 512;
/// Enough rows for planes.
const VOCAB: usize = 1100;

/// Name, number in files, weights and bytes of a block, where its f16 scales stand (MXFP4 has an exponent), columns that share
/// a scale, whether they share an offset, and bits of a weight in the bundle.
type Kind = (&'static str, u32, usize, usize, &'static [usize], u32, bool, usize);

const KINDS: [Kind; 13] = [
    ("Q4_0", 2, 32, 18, &[0], 32, false, 9),
    ("Q4_1", 3, 32, 20, &[0, 2], 32, true, 10),
    ("Q5_0", 6, 32, 22, &[0], 32, false, 9),
    ("Q5_1", 7, 32, 24, &[0, 2], 32, true, 10),
    ("Q8_0", 8, 32, 34, &[0], 32, false, 9),
    ("Q2_K", 10, 256, 84, &[80, 82], 16, true, 12),
    ("Q3_K", 11, 256, 110, &[108], 16, false, 10),
    ("Q4_K", 12, 256, 144, &[0, 2], 32, true, 10),
    ("Q5_K", 13, 256, 176, &[0, 2], 32, true, 10),
    ("Q6_K", 14, 256, 210, &[208], 16, false, 10),
    ("IQ4_NL", 20, 32, 18, &[0], 32, false, 9),
    ("IQ4_XS", 23, 256, 136, &[0], 32, false, 9),
    ("MXFP4", 39, 32, 17, &[], 32, false, 9),
];

/// Random blocks, with scales of which weights are about as large as a model's.
fn blocks(random: &mut Random, (name, _, weights, bytes, halves, ..): &Kind, elements: usize) -> Vec<u8> {
    let mut all = Vec::with_capacity(elements / weights * bytes);
    for _ in 0..elements / weights {
        let mut block: Vec<u8> = (0..*bytes).map(|_| random.below(256) as u8).collect();
        for &at in *halves {
            // Between 2^-12 and 2^-10, of either sign, in f16.
            let bits = (3 + random.below(2) as u16) << 10 | random.below(1024) as u16;
            let sign = (random.below(2) as u16) << 15;
            block[at..at + 2].copy_from_slice(&(bits | sign).to_le_bytes());
        }
        if *name == "MXFP4" {
            block[0] = 120 + random.below(4) as u8;
        }
        all.extend(block);
    }
    all
}

/// A small model whose embedding and head are of that type, the head with other values.
fn model(kind: &Kind) -> Model {
    let mut file = File::model("llama", false);
    for (key, value) in [("embedding_length", HIDDEN as u32), ("attention.head_count", 16)] {
        file.key(&format!("llama.{key}"), writer::u32(value));
    }
    file.key("llama.attention.head_count_kv", writer::u32(8));
    for norm in ["output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"] {
        file.floats(&format!("{norm}.weight"), &[HIDDEN as u64]);
    }
    for (part, rows, k) in [
        ("attn_q", 512, 512),
        ("attn_k", 256, 512),
        ("attn_v", 256, 512),
        ("attn_output", 512, 512),
        ("ffn_gate", 128, 512),
        ("ffn_up", 128, 512),
        ("ffn_down", 512, 128),
    ] {
        let name = format!("blk.0.{part}.weight");
        file.tensor(&name, &[k as u64, rows as u64], 42, q2_0(&trits(&name, rows * k), 0.0625));
    }
    let mut random = Random(u64::from(kind.1) + 1);
    for name in ["token_embd.weight", "output.weight"] {
        let bytes = blocks(&mut random, kind, VOCAB * HIDDEN);
        file.tensor(name, &[HIDDEN as u64, VOCAB as u64], kind.1, bytes);
    }
    let mut model = file.load().unwrap_or_else(|e| panic!("{}: {e}", kind.0));
    // The file is gone, though still mapped, and need not be compared with what was read.
    model.inputs = Default::default();
    linear_of_codes(&mut model, kind);
    model
}

/// Makes the projection of keys one of codes: rows of the embedding.
fn linear_of_codes(model: &mut Model, kind: &Kind) {
    let table = model.embedding.dense().unwrap().clone();
    let Mixer::Attention(attention) = &mut model.layers[0].mixer else { panic!("attention") };
    let rows = attention.k.matrix.shape()[0];
    let data = (*table.data).as_ref()[..rows * HIDDEN / kind.2 * kind.3].to_vec();
    let name = "k".to_owned();
    let table = Dense { name, shape: vec![rows, HIDDEN], data: Arc::new(data), ..table };
    attention.k.matrix = Matrix::Dense(table);
}

/// The same model with the values of its tables in F32.
fn widened(mut model: Model) -> Model {
    let widen = |matrix: &mut Matrix| {
        let Matrix::Dense(table) = matrix else { panic!("a table that is not ternary") };
        let mut data = Vec::new();
        let mut values = vec![0.0; table.shape[1]];
        for row in 0..table.shape[0] {
            table.read_row(row, &mut values);
            data.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        }
        let (name, shape) = (table.name.clone(), table.shape.clone());
        *matrix = Matrix::Dense(Dense { name, dtype: DType::F32, shape, data: Arc::new(data), coder: None });
    };
    widen(&mut model.embedding);
    widen(model.head.as_mut().expect("a head of its own"));
    let Mixer::Attention(attention) = &mut model.layers[0].mixer else { panic!("attention") };
    widen(&mut attention.k.matrix);
    model
}

/// The bundle of a model.
fn bundle(model: &Model, folder: &Path, name: &str) -> PathBuf {
    let out = folder.join(format!("{name}.trit"));
    compile(model, &out, &resolve(&[TargetChoice::All]).unwrap(), &Silent).unwrap();
    out
}

/// The bytes of a tensor in the bundle.
fn bytes<'a>(bundle: &'a Bundle, tensor: &Tensor) -> &'a [u8] {
    &bundle.section(SectionKind::Tensors)[tensor.offset as usize..][..tensor.bytes().unwrap() as usize]
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// The largest logits after each token, with planes and rescored rows.
fn largest(bundle: &Path, ids: &[u32]) -> Vec<(u32, u32)> {
    let engine = engine(&load(bundle, KernelChoice::Auto), 2, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    let mut found = Vec::new();
    let request = LogitsRequest::Largest { count: 3, within: 0.5, allowed: None, forced: vec![7] };
    engine.advance(&mut sequence, ids, &vec![request; ids.len()], None).unwrap();
    for row in 0..ids.len() {
        match sequence.logits(row) {
            Some(Logits::Candidates(candidates)) => {
                let mut row: Vec<(u32, u32)> =
                    candidates.iter().map(|candidate| (candidate.id, candidate.logit.to_bits())).collect();
                row.sort_unstable();
                found.extend(row);
            }
            _ => panic!("the largest alone were asked for"),
        }
    }
    found
}

#[test]
fn every_type_gives_the_bits_of_its_floats_in_fewer_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..7).map(|i| (i * 371 + 5) % VOCAB as u32).collect();
    for kind in &KINDS {
        let &(name, .., columns, offsets, bits_each) = kind;
        let coded = model(kind);
        let path = bundle(&coded, folder.path(), &format!("{name}-coded"));
        let floats = bundle(&widened(model(kind)), folder.path(), &format!("{name}-floats"));

        let [a, b] = [&path, &floats].map(|path| Bundle::open(path).unwrap());
        let tables =
            a.manifest().tensors.iter().zip(&b.manifest().tensors).filter(|(t, _)| t.shape.len() == 2);
        let mut count = 0;
        for (table, floats) in tables {
            assert_eq!(table.dtype, DType::I8Blocks { columns, offsets }, "{name}");
            assert_eq!((floats.dtype, &floats.shape), (DType::F32, &table.shape), "{name}");
            let elements = table.elements().unwrap() as usize;
            assert_eq!(
                (bytes(&a, table).len() * 8, table.dtype.bits() as usize),
                (bits_each * elements, bits_each)
            );
            assert_eq!(bytes(&b, floats).len(), 4 * elements);
            count += 1;
        }
        assert_eq!(count, 3, "{name}: embedding, head and projection");
        // Planes depend on values alone, and are made again of what the bundle has.
        assert_eq!(a.section(SectionKind::Planes), b.section(SectionKind::Planes), "{name}");
        assert!(!a.section(SectionKind::Planes).is_empty());
        verify(&a, true).unwrap();

        for way in ways() {
            let [a, b] = [&path, &floats].map(|bundle| bits(&all_logits(&mut way.open(bundle), &ids)));
            assert!(a == b, "{name} {way:?}: other logits than with floats");
        }
        let found = largest(&path, &ids);
        assert_eq!(found, largest(&floats, &ids), "{name}");
        assert!(found.len() >= 3 * ids.len());
    }
}

/// The compiler's forward pass made the goldens of the codes; the runtime is near them.
#[test]
fn goldens_are_those_of_the_floats() {
    let folder = tempfile::tempdir().unwrap();
    let kind = KINDS.iter().find(|kind| kind.0 == "Q6_K").unwrap();
    let paths = [model(kind), widened(model(kind))]
        .iter()
        .enumerate()
        .map(|(i, model)| bundle(model, folder.path(), &i.to_string()))
        .collect::<Vec<_>>();
    let goldens: Vec<Vec<u8>> = paths
        .iter()
        .map(|path| {
            let bundle = Bundle::open(path).unwrap();
            let logits = bundle.manifest().goldens[0].logits;
            bytes(&bundle, &bundle.manifest().tensors[logits.0 as usize]).to_vec()
        })
        .collect();
    assert_eq!(goldens[0], goldens[1]);
    let mut command = trit_run(&["selftest", "--trust"]);
    command.arg(&paths[0]);
    run(command).ok();
}

/// `tritc inspect` names the type of the table and its bits, of a bundle and of a checkpoint.
#[test]
fn inspection_names_the_codes() {
    let folder = tempfile::tempdir().unwrap();
    let kind = KINDS.iter().find(|kind| kind.0 == "Q4_K").unwrap();
    let model = model(kind);
    let report = inspect::report(&model.report);
    assert!(report.contains("Q4_K 1100x512: floats, kept as i8/32+offset (10 bits)"), "{report}");
    let bundle = Bundle::open(&bundle(&model, folder.path(), "inspect")).unwrap();
    let text = inspect::describe(&bundle);
    let line = "token_embd.weight, 1100x512, i8/32+offset, 10 bits an element";
    assert!(text.lines().any(|text| text.starts_with("table") && text.ends_with(line)), "{text}");
    let json = inspect::json(&bundle);
    let tensors = json["tensors"].as_array().unwrap();
    let table = tensors.iter().find(|tensor| tensor["name"] == "token_embd.weight").unwrap();
    assert_eq!((&table["dtype"], &table["bits"]), (&"i8/32+offset".into(), &10.into()));
    let Some(Step::Embed { .. }) = bundle.manifest().plan.body.first() else { panic!("a table of floats") };
}
