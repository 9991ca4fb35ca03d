//! Writes a GGUF file of a published model's shapes with random weights, for measuring speed where the model itself is not
//! at hand. It has no tokenizer.
//!
//!     cargo run --release -p trit-tests --bin shapes -- MODEL TYPE OUT.gguf [LAYERS]
//!
//! MODEL: `bonsai-27b` (hybrid, ternary gates), `bonsai-27b-mtp` (with a block that drafts tokens, Q8_0; the layers work but add
//! nothing, so that each token decides the next one, and the block guesses it right), `bonsai-2-27b` (hybrid, rotated, gates of bf16), `bonsai-8b`, `bonsai-4b`,
//! `bonsai-1.7b` (Qwen 3). TYPE: `PQ2_0`, `Q2_0`, `PTQ1_0`, `TQ2_0`, `Q1_0`; with embedding and head that are not ternary
//! `PQ2_0+Q6_K` and the like, of `Q8_0`, `Q6_K`, `Q4_K`. LAYERS: fewer layers than the model has.
#![forbid(unsafe_code)]

use half::{bf16, f16};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// Sizes of a model.
struct Shape {
    name: &'static str,
    layers: u32,
    hidden: u32,
    ffn: u32,
    heads: [u32; 2],
    head_dim: u32,
    vocab: u32,
    tied: bool,
    hybrid: bool,
    rotated: bool,
    drafts: bool,
}

const QWEN3: Shape = Shape {
    name: "bonsai-8b",
    layers: 36,
    hidden: 4096,
    ffn: 12288,
    heads: [32, 8],
    head_dim: 128,
    vocab: 151_936,
    tied: false,
    hybrid: false,
    rotated: false,
    drafts: false,
};
const HYBRID: Shape = Shape {
    name: "bonsai-27b",
    layers: 64,
    hidden: 5120,
    ffn: 17408,
    heads: [24, 4],
    head_dim: 256,
    vocab: 248_320,
    tied: false,
    hybrid: true,
    rotated: false,
    drafts: false,
};
const SHAPES: [Shape; 6] = [
    HYBRID,
    Shape { name: "bonsai-27b-mtp", drafts: true, ..HYBRID },
    Shape { name: "bonsai-2-27b", rotated: true, ..HYBRID },
    QWEN3,
    Shape { name: "bonsai-4b", hidden: 2560, ffn: 9728, tied: true, ..QWEN3 },
    Shape { name: "bonsai-1.7b", layers: 28, hidden: 2048, ffn: 6144, heads: [16, 8], tied: true, ..QWEN3 },
];

/// Value heads, key heads and the size of both in Gated DeltaNet.
const DELTA: [u32; 3] = [48, 16, 128];
/// Elements that a rotation transforms together.
const BLOCK: u32 = 1024;

/// How ternary weights are stored.
#[derive(Clone, Copy, PartialEq)]
enum Weights {
    Pq2,
    Q2,
    Ptq1,
    Tq2,
    Q1,
}

impl Weights {
    /// Type id in GGUF, weights of a block, bytes of its codes, and whether the scale follows the codes.
    fn block(self) -> (u32, usize, usize, bool) {
        match self {
            Weights::Pq2 => (142, 128, 32, false),
            Weights::Q2 => (42, 64, 16, false),
            Weights::Ptq1 => (143, 128, 26, true),
            Weights::Tq2 => (35, 256, 64, true),
            Weights::Q1 => (41, 128, 16, false),
        }
    }
}

/// How tables are stored that are not ternary.
#[derive(Clone, Copy)]
struct Integers {
    name: &'static str,
    /// In GGUF.
    id: u32,
    /// Weights and bytes of a block.
    block: [usize; 2],
    /// The f16 in a block: where they stand, and values with which weights are about as large as a model's.
    scales: &'static [(usize, f32)],
}

const Q8_0: Integers = Integers { name: "Q8_0", id: 8, block: [32, 34], scales: &[(0, 3e-4)] };
const INTEGERS: [Integers; 3] = [
    Q8_0,
    Integers { name: "Q6_K", id: 14, block: [256, 210], scales: &[(208, 1.5e-5)] },
    Integers { name: "Q4_K", id: 12, block: [256, 144], scales: &[(0, 1.4e-4), (2, 1.05e-3)] },
];

impl Integers {
    fn write(&self, random: &mut Random, elements: u64, out: &mut impl Write) -> io::Result<()> {
        let [weights, bytes] = self.block;
        let mut block = vec![0u8; bytes];
        for _ in 0..elements / weights as u64 {
            for eight in block.chunks_mut(8) {
                let len = eight.len();
                eight.copy_from_slice(&random.next().to_le_bytes()[..len]);
            }
            for &(at, scale) in self.scales {
                let scale = f16::from_f32(scale * (1.0 + 0.2 * random.unit()));
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
            out.write_all(&block)?;
        }
        Ok(())
    }
}

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn unit(&mut self) -> f32 {
        (self.next() % 65536) as f32 / 32768.0 - 1.0
    }
}

/// One tensor: its name, `[rows, columns]` or one length, and what is in it.
struct Tensor {
    name: String,
    shape: Vec<u32>,
    data: Data,
}

enum Data {
    Weights(Weights),
    /// Zeros, stored as the weights are.
    Zeros(Weights),
    Integers(Integers),
    /// Q8_0: this number where row and column are the same, else 0.
    Diagonal(i8),
    Bf16,
    F32(fn(&mut Random) -> f32),
}

impl Tensor {
    fn type_id(&self) -> u32 {
        match self.data {
            Data::Weights(weights) | Data::Zeros(weights) => weights.block().0,
            Data::Integers(integers) => integers.id,
            Data::Diagonal(_) => Q8_0.id,
            Data::Bf16 => 30,
            Data::F32(_) => 0,
        }
    }

    fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| u64::from(n)).product()
    }

    fn bytes(&self) -> u64 {
        match self.data {
            Data::Weights(weights) | Data::Zeros(weights) => {
                let (_, columns, codes, _) = weights.block();
                self.elements() / columns as u64 * (codes as u64 + 2)
            }
            Data::Integers(Integers { block: [weights, bytes], .. }) => {
                self.elements() / weights as u64 * bytes as u64
            }
            Data::Diagonal(_) => self.elements() / 32 * 34,
            Data::Bf16 => 2 * self.elements(),
            Data::F32(_) => 4 * self.elements(),
        }
    }

    fn write(&self, random: &mut Random, out: &mut impl Write) -> io::Result<()> {
        match self.data {
            Data::F32(value) => {
                (0..self.elements()).try_for_each(|_| out.write_all(&value(random).to_le_bytes()))
            }
            Data::Integers(integers) => integers.write(random, self.elements(), out),
            Data::Bf16 => (0..self.elements())
                .try_for_each(|_| out.write_all(&bf16::from_f32(random.unit() * 0.02).to_le_bytes())),
            Data::Diagonal(value) => {
                let columns = u64::from(self.shape[1]);
                for block in 0..self.elements() / 32 {
                    let (row, column) = (block * 32 / columns, block * 32 % columns);
                    let mut bytes = [0u8; 34];
                    bytes[..2].copy_from_slice(&f16::from_f32(1.0 / 127.0).to_le_bytes());
                    if let Some(at) = row.checked_sub(column).filter(|&at| at < 32) {
                        bytes[2 + at as usize] = value as u8;
                    }
                    out.write_all(&bytes)?;
                }
                Ok(())
            }
            Data::Weights(weights) | Data::Zeros(weights) => {
                let (_, columns, codes, scale_last) = weights.block();
                // Two of three weights count, so that results are about as large as inputs.
                let scale = 1.0 / (0.67 * self.shape[1] as f32).sqrt();
                let table = match self.data {
                    Data::Zeros(_) => [zeros(weights); 256],
                    _ => bytes(weights),
                };
                let mut block = vec![0u8; codes];
                for _ in 0..self.elements() / columns as u64 {
                    for eight in block.chunks_mut(8) {
                        let bits = random.next().to_le_bytes();
                        eight.iter_mut().zip(bits).for_each(|(b, bits)| *b = table[bits as usize]);
                    }
                    let scale = f16::from_f32(scale * (1.0 + 0.2 * random.unit())).to_le_bytes();
                    if scale_last {
                        out.write_all(&block)?;
                        out.write_all(&scale)?;
                    } else {
                        out.write_all(&scale)?;
                        out.write_all(&block)?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The byte whose weights are all 0. There is none of signs.
fn zeros(weights: Weights) -> u8 {
    match weights {
        Weights::Ptq1 => bytes(weights)[121],
        Weights::Pq2 | Weights::Q2 | Weights::Tq2 | Weights::Q1 => 0x55,
    }
}

/// A byte of legal codes for each byte.
fn bytes(weights: Weights) -> [u8; 256] {
    std::array::from_fn(|i| match weights {
        Weights::Q1 => i as u8,
        // As ggml packs five trits: `ceil(value * 256 / 243)`.
        Weights::Ptq1 => ((i % 243) * 256).div_ceil(243) as u8,
        Weights::Pq2 | Weights::Q2 | Weights::Tq2 => {
            let (mut rest, mut byte) = (i % 81, 0);
            for pair in 0..4 {
                byte |= ((rest % 3) as u8) << (2 * pair);
                rest /= 3;
            }
            byte
        }
    })
}

fn tensors(shape: &Shape, weights: Weights, tables: Option<Integers>) -> Vec<Tensor> {
    let Shape { hidden, ffn, heads: [q, kv], head_dim, vocab, .. } = *shape;
    let mut all = Vec::new();
    let matrix = |name: String, rows, columns| Tensor {
        name,
        shape: vec![rows, columns],
        data: Data::Weights(weights),
    };
    // What layers add to the residual stream.
    let ends = |name: String, rows, columns| match shape.drafts {
        true => Tensor { data: Data::Zeros(weights), ..matrix(name, rows, columns) },
        false => matrix(name, rows, columns),
    };
    let floats = |name: String, shape: Vec<u32>, value| Tensor { name, shape, data: Data::F32(value) };
    let one: fn(&mut Random) -> f32 = |_| 1.0;
    let table = |name: &str| {
        let data = tables.map_or(Data::Weights(weights), Data::Integers);
        Tensor { name: name.to_owned(), shape: vec![vocab, hidden], data }
    };
    all.push(table("token_embd.weight"));
    for layer in 0..shape.layers {
        let at = |name: &str| format!("blk.{layer}.{name}");
        all.push(floats(at("attn_norm.weight"), vec![hidden], one));
        if shape.hybrid && (layer + 1) % 4 != 0 {
            let [values, keys, dim] = DELTA;
            let (channels, inner) = ((2 * keys + values) * dim, values * dim);
            all.push(matrix(at("attn_qkv.weight"), channels, hidden));
            all.push(matrix(at("attn_gate.weight"), inner, hidden));
            for name in ["ssm_alpha.weight", "ssm_beta.weight"] {
                let mut gate = matrix(at(name), values, hidden);
                if shape.rotated {
                    gate.data = Data::Bf16;
                }
                all.push(gate);
            }
            all.push(floats(at("ssm_conv1d.weight"), vec![channels, 4], |random| random.unit()));
            all.push(floats(at("ssm_a"), vec![values], |random| -1.0 - 0.5 * random.unit()));
            all.push(floats(at("ssm_dt.bias"), vec![values], |random| random.unit()));
            all.push(floats(at("ssm_norm.weight"), vec![dim], one));
            all.push(ends(at("ssm_out.weight"), hidden, inner));
        } else {
            let gated = if shape.hybrid { 2 } else { 1 };
            all.push(matrix(at("attn_q.weight"), gated * q * head_dim, hidden));
            all.push(matrix(at("attn_k.weight"), kv * head_dim, hidden));
            all.push(matrix(at("attn_v.weight"), kv * head_dim, hidden));
            all.push(ends(at("attn_output.weight"), hidden, q * head_dim));
            all.push(floats(at("attn_q_norm.weight"), vec![head_dim], one));
            all.push(floats(at("attn_k_norm.weight"), vec![head_dim], one));
        }
        let norm = if shape.hybrid { "post_attention_norm.weight" } else { "ffn_norm.weight" };
        all.push(floats(at(norm), vec![hidden], one));
        all.push(matrix(at("ffn_gate.weight"), ffn, hidden));
        all.push(matrix(at("ffn_up.weight"), ffn, hidden));
        all.push(ends(at("ffn_down.weight"), hidden, ffn));
    }
    if shape.drafts {
        let at = |name: &str| format!("blk.{}.{name}.weight", shape.layers);
        for norm in
            ["attn_norm", "post_attention_norm", "nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"]
        {
            all.push(floats(at(norm), vec![hidden], one));
        }
        for norm in ["attn_q_norm", "attn_k_norm"] {
            all.push(floats(at(norm), vec![head_dim], one));
        }
        let mut block = |name: &str, rows, columns, data| {
            all.push(Tensor { name: at(name), shape: vec![rows, columns], data });
        };
        block("nextn.eh_proj", hidden, 2 * hidden, Data::Diagonal(127));
        for (name, rows) in
            [("attn_q", 2 * q * head_dim), ("attn_k", kv * head_dim), ("attn_v", kv * head_dim)]
        {
            block(name, rows, hidden, Data::Integers(Q8_0));
        }
        block("attn_output", hidden, q * head_dim, Data::Diagonal(0));
        block("ffn_gate", ffn, hidden, Data::Integers(Q8_0));
        block("ffn_up", ffn, hidden, Data::Integers(Q8_0));
        block("ffn_down", hidden, ffn, Data::Diagonal(0));
    }
    all.push(floats("output_norm.weight".into(), vec![hidden], one));
    if !shape.tied {
        all.push(table("output.weight"));
    }
    all
}

/// Metadata, encoded, and the number of its keys.
#[derive(Default)]
struct Metadata {
    bytes: Vec<u8>,
    keys: u64,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        string(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
        self.keys += 1;
    }

    fn text(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        string(&mut self.bytes, value);
    }

    fn unsigned(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn float(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    fn list(&mut self, key: &str, kind: u32, len: usize, values: impl FnOnce(&mut Vec<u8>)) {
        self.key(key, 9);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((len as u64).to_le_bytes());
        values(&mut self.bytes);
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.bytes());
}

fn metadata(shape: &Shape, weights: Weights, tensors: &[Tensor]) -> Metadata {
    let mut all = Metadata::default();
    let architecture = if shape.hybrid { "qwen35" } else { "qwen3" };
    all.text("general.architecture", architecture);
    all.text("general.name", shape.name);
    let at = |key: &str| format!("{architecture}.{key}");
    for (key, value) in [
        ("block_count", shape.layers + u32::from(shape.drafts)),
        ("context_length", 32768),
        ("embedding_length", shape.hidden),
        ("feed_forward_length", shape.ffn),
        ("attention.head_count", shape.heads[0]),
        ("attention.head_count_kv", shape.heads[1]),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("vocab_size", shape.vocab),
    ] {
        all.unsigned(&at(key), value);
    }
    all.float(&at("attention.layer_norm_rms_epsilon"), 1e-6);
    all.float(&at("rope.freq_base"), 1e7);
    if shape.drafts {
        all.unsigned(&at("nextn_predict_layers"), 1);
    }
    if shape.hybrid {
        let [values, keys, dim] = DELTA;
        for (key, value) in [
            ("ssm.conv_kernel", 4),
            ("ssm.state_size", dim),
            ("ssm.group_count", keys),
            ("ssm.time_step_rank", values),
            ("ssm.inner_size", values * dim),
            ("full_attention_interval", 4),
            ("rope.dimension_count", 64),
        ] {
            all.unsigned(&at(key), value);
        }
        all.list(&at("rope.dimension_sections"), 5, 4, |out| {
            [11i32, 11, 10, 0].iter().for_each(|n| out.extend(n.to_le_bytes()));
        });
    }
    if shape.rotated {
        rotations(shape, weights, tensors, &mut all);
    }
    all.text("tokenizer.ggml.model", "none");
    all
}

fn rotations(shape: &Shape, weights: Weights, tensors: &[Tensor], all: &mut Metadata) {
    let widths = [shape.hidden, DELTA[0] * DELTA[2], shape.ffn];
    let rotated = |tensor: &&Tensor| matches!(tensor.data, Data::Weights(of) if of == weights);
    let (embedding, others): (Vec<&Tensor>, Vec<&Tensor>) =
        tensors.iter().filter(rotated).partition(|tensor| tensor.name == "token_embd.weight");
    all.unsigned("prism.hadamard.version", 1);
    all.unsigned("prism.hadamard.block_size", BLOCK);
    all.text("prism.hadamard.transform", "normalized-sylvester-walsh-hadamard");
    all.text("prism.hadamard.axis", "input-last-dimension");
    all.text("prism.hadamard.sign_mode", "explicit");
    all.bool("prism.hadamard.gdn_v_grouped", true);
    all.list("prism.hadamard.sign_widths", 5, widths.len(), |out| {
        widths.iter().for_each(|&n| out.extend((n as i32).to_le_bytes()));
    });
    let signs: u32 = widths.iter().sum();
    all.list("prism.hadamard.sign_values", 5, signs as usize, |out| {
        (0..signs as i32).for_each(|i| out.extend((1 - 2 * (i / 3 % 2)).to_le_bytes()));
    });
    for (key, names) in
        [("prism.hadamard.weight_names", others), ("prism.hadamard.inverse_weight_names", embedding)]
    {
        all.list(key, 8, names.len(), |out| names.iter().for_each(|tensor| string(out, &tensor.name)));
    }
}

/// Where data begins, and each tensor in it.
const ALIGNMENT: u64 = 32;

fn write(shape: &Shape, weights: Weights, tables: Option<Integers>, out: &mut impl Write) -> io::Result<u64> {
    let tensors = tensors(shape, weights, tables);
    let metadata = metadata(shape, weights, &tensors);
    let mut head = b"GGUF".to_vec();
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(metadata.keys.to_le_bytes());
    head.extend(metadata.bytes);
    let mut offset = 0u64;
    for tensor in &tensors {
        string(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        // GGUF names the columns first.
        tensor.shape.iter().rev().for_each(|&n| head.extend(u64::from(n).to_le_bytes()));
        head.extend(tensor.type_id().to_le_bytes());
        head.extend(offset.to_le_bytes());
        offset = (offset + tensor.bytes()).next_multiple_of(ALIGNMENT);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT as usize), 0);
    out.write_all(&head)?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for tensor in &tensors {
        tensor.write(&mut random, out)?;
        let bytes = tensor.bytes();
        out.write_all(&vec![0; (bytes.next_multiple_of(ALIGNMENT) - bytes) as usize])?;
    }
    Ok(head.len() as u64 + offset)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = || {
        let names: Vec<&str> = SHAPES.iter().map(|shape| shape.name).collect();
        eprintln!(
            "usage: shapes {} PQ2_0|Q2_0|PTQ1_0|TQ2_0|Q1_0[+Q8_0|+Q6_K|+Q4_K] OUT.gguf [LAYERS]",
            names.join("|")
        );
        ExitCode::from(2)
    };
    let [model, kind, file, layers @ ..] = &args[..] else { return usage() };
    let (linears, tables) = kind.split_once('+').map_or((kind.as_str(), None), |(a, b)| (a, Some(b)));
    let of_name = |name| INTEGERS.into_iter().find(|integers| integers.name == name);
    let Ok(tables) = tables.map(|name| of_name(name).ok_or(())).transpose() else { return usage() };
    let weights = match linears {
        "PQ2_0" => Weights::Pq2,
        "Q2_0" => Weights::Q2,
        "PTQ1_0" => Weights::Ptq1,
        "TQ2_0" => Weights::Tq2,
        "Q1_0" => Weights::Q1,
        _ => return usage(),
    };
    let Some(mut shape) = SHAPES.into_iter().find(|shape| shape.name == *model) else { return usage() };
    match layers {
        [] => {}
        [layers] => match layers.parse() {
            Ok(layers) if layers > 0 => shape.layers = layers,
            _ => return usage(),
        },
        _ => return usage(),
    }
    let written = File::create(file).and_then(|out| {
        let mut out = BufWriter::with_capacity(1 << 20, out);
        let bytes = write(&shape, weights, tables, &mut out)?;
        out.flush()?;
        Ok(bytes)
    });
    match written {
        Ok(bytes) => {
            println!("{file}: {} layers of {model} in {kind}, {bytes} bytes", shape.layers);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("shapes: {file}: {e}");
            ExitCode::from(3)
        }
    }
}
