//! Writes GGUF files, whole ones and bent ones.

use half::f16;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use trit_format::manifest::Hyperparameters;
use tritc::CompileError;
use tritc::load::{LoadOptions, load};
use tritc::model::{Matrix, Model, NormWeights, Projection, Ternary};

/// A value with its type, as it stands in the file.
#[derive(Clone)]
pub struct Value(pub u32, pub Vec<u8>);

pub fn u32(value: u32) -> Value {
    Value(4, value.to_le_bytes().to_vec())
}

pub fn i32(value: i32) -> Value {
    Value(5, value.to_le_bytes().to_vec())
}

pub fn f32(value: f32) -> Value {
    Value(6, value.to_le_bytes().to_vec())
}

pub fn bool(value: bool) -> Value {
    Value(7, vec![value.into()])
}

pub fn text(value: &str) -> Value {
    Value(8, string(value.as_bytes()))
}

pub fn texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Value {
    let strings: Vec<Vec<u8>> = values.into_iter().map(|value| string(value.as_bytes())).collect();
    array(8, strings.len() as u64, strings.concat())
}

pub fn f32s(values: &[f32]) -> Value {
    array(6, values.len() as u64, values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

pub fn i32s(values: &[i32]) -> Value {
    array(5, values.len() as u64, values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// An array of elements of that type.
pub fn array(kind: u32, len: u64, elements: Vec<u8>) -> Value {
    Value(9, [kind.to_le_bytes().to_vec(), len.to_le_bytes().to_vec(), elements].concat())
}

pub fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

/// A tensor; its dimensions stand fastest first, as in the file.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub dimensions: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
    /// Where it says that it lies, if that is not where it lies.
    pub offset: Option<u64>,
}

/// A file before it is written.
#[derive(Clone)]
pub struct File {
    pub magic: [u8; 4],
    pub version: u32,
    pub keys: Vec<(Vec<u8>, Value)>,
    pub tensors: Vec<Tensor>,
    /// How many tensors and keys it says that it has, if it lies.
    pub counts: [Option<u64>; 2],
    pub alignment: usize,
}

/// Hidden 64, ffn 128, 2 heads of 32, 1 KV head, 16 tokens, 1 layer.
pub const MATRICES: [(&str, usize, usize); 7] = [
    ("attn_q", 64, 64),
    ("attn_k", 32, 64),
    ("attn_v", 32, 64),
    ("attn_output", 64, 64),
    ("ffn_gate", 128, 64),
    ("ffn_up", 128, 64),
    ("ffn_down", 64, 128),
];

/// The tensor that most tests bend.
pub const Q: &str = "blk.0.attn_q.weight";

/// Q2_0 blocks of 64 trits with that scale.
pub fn q2_0(trits: &[i8], scale: f32) -> Vec<u8> {
    let mut bytes = Vec::new();
    for block in trits.chunks(64) {
        bytes.extend(f16::from_f32(scale).to_le_bytes());
        bytes.extend(block.chunks(4).map(|four| {
            four.iter().enumerate().fold(0, |byte, (i, trit)| byte | ((trit + 1) as u8) << (2 * i))
        }));
    }
    bytes
}

/// Trits of a matrix, from its name.
pub fn trits(name: &str, n: usize) -> Vec<i8> {
    let mut state =
        name.bytes().fold(0x9e37_79b9u64, |state, b| state.wrapping_mul(31).wrapping_add(b.into())) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % 3) as i8 - 1
    };
    (0..n).map(|_| next()).collect()
}

fn floats(len: usize) -> Vec<u8> {
    (0..len).flat_map(|i| (0.5 + (i % 7) as f32 / 8.0).to_le_bytes()).collect()
}

impl File {
    pub fn empty() -> File {
        File { magic: *b"GGUF", version: 3, keys: vec![], tensors: vec![], counts: [None; 2], alignment: 32 }
    }

    /// BitNet b1.58 of Q2_0 blocks with one scale, as the files of Microsoft name it.
    pub fn bitnet() -> File {
        File::model("bitnet-b1.58", true)
    }

    /// A model of that architecture, with or without the norms of BitNet.
    pub fn model(architecture: &str, sub_norms: bool) -> File {
        let mut file = File::empty();
        file.key("general.architecture", text(architecture));
        let sizes = [
            ("block_count", 1),
            ("context_length", 128),
            ("embedding_length", 64),
            ("feed_forward_length", 128),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
            ("rope.dimension_count", 32),
        ];
        for (key, size) in sizes {
            file.key(&format!("{architecture}.{key}"), u32(size));
        }
        file.key(&format!("{architecture}.attention.layer_norm_rms_epsilon"), f32(1e-5));
        file.key(&format!("{architecture}.rope.freq_base"), f32(500_000.0));
        file.floats("token_embd.weight", &[64, 16]);
        file.floats("output_norm.weight", &[64]);
        file.floats("blk.0.attn_norm.weight", &[64]);
        file.floats("blk.0.ffn_norm.weight", &[64]);
        if sub_norms {
            file.floats("blk.0.attn_sub_norm.weight", &[64]);
            file.floats("blk.0.ffn_sub_norm.weight", &[128]);
        }
        for (part, rows, k) in MATRICES {
            let name = format!("blk.0.{part}.weight");
            let bytes = q2_0(&trits(&name, rows * k), 0.75);
            file.tensor(&name, &[k as u64, rows as u64], 42, bytes);
        }
        file
    }

    pub fn key(&mut self, name: &str, value: Value) -> &mut File {
        self.keys.retain(|(other, _)| other != name.as_bytes());
        self.keys.push((name.as_bytes().to_vec(), value));
        self
    }

    pub fn without_key(&mut self, name: &str) -> &mut File {
        self.keys.retain(|(other, _)| other != name.as_bytes());
        self
    }

    pub fn tensor(&mut self, name: &str, dimensions: &[u64], kind: u32, bytes: Vec<u8>) -> &mut File {
        self.tensors.retain(|tensor| tensor.name != name);
        let dimensions = dimensions.to_vec();
        self.tensors.push(Tensor { name: name.to_owned(), dimensions, kind, bytes, offset: None });
        self
    }

    pub fn floats(&mut self, name: &str, dimensions: &[u64]) -> &mut File {
        let bytes = floats(dimensions.iter().product::<u64>() as usize);
        self.tensor(name, dimensions, 0, bytes)
    }

    /// The keys of a model's sizes.
    pub fn sizes(&mut self, architecture: &str, sizes: &Hyperparameters) -> &mut File {
        for (key, size) in [
            ("block_count", sizes.n_layers),
            ("context_length", sizes.context_length),
            ("embedding_length", sizes.hidden_dim),
            ("feed_forward_length", sizes.ffn_dim),
            ("attention.head_count", sizes.n_heads),
            ("attention.head_count_kv", sizes.n_kv_heads),
        ] {
            self.key(&format!("{architecture}.{key}"), u32(size));
        }
        self
    }

    /// Norm weights as F32.
    pub fn norm(&mut self, name: &str, (_, values): &NormWeights) -> &mut File {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensor(name, &[values.len() as u64], 0, bytes)
    }

    /// An embedding or head of floats as F32.
    pub fn table(&mut self, name: &str, matrix: &Matrix) -> &mut File {
        let Matrix::Dense(table) = matrix else { panic!("a table of floats") };
        let (mut row, mut bytes) = (vec![0.0; table.shape[1]], Vec::new());
        for index in 0..table.shape[0] {
            table.read_row(index, &mut row);
            bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        }
        self.tensor(name, &[table.shape[1] as u64, table.shape[0] as u64], 0, bytes)
    }

    pub fn without_tensor(&mut self, name: &str) -> &mut File {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    /// The tensor of that name, to be bent.
    pub fn at(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.magic.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.counts[0].unwrap_or(self.tensors.len() as u64).to_le_bytes());
        bytes.extend(self.counts[1].unwrap_or(self.keys.len() as u64).to_le_bytes());
        for (name, Value(kind, value)) in &self.keys {
            bytes.extend(string(name));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            bytes.extend(string(tensor.name.as_bytes()));
            bytes.extend((tensor.dimensions.len() as u32).to_le_bytes());
            tensor.dimensions.iter().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(tensor.kind.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.bytes);
            data.resize(data.len().next_multiple_of(self.alignment), 0);
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(data);
        bytes
    }

    /// Writes it to a folder of its own.
    pub fn write(&self) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        fs::write(&path, self.bytes()).unwrap();
        (dir, path)
    }

    pub fn load(&self) -> Result<Model, CompileError> {
        self.load_with(&LoadOptions::default())
    }

    pub fn load_with(&self, options: &LoadOptions) -> Result<Model, CompileError> {
        let (_dir, path) = self.write();
        load(&path, options)
    }
}

pub fn load_path(path: &Path) -> Result<Model, CompileError> {
    load(path, &LoadOptions::default())
}

pub fn ternary(projection: &Projection) -> &Ternary {
    projection.matrix.ternary().unwrap()
}

/// All trits of a matrix.
pub fn read(matrix: &Ternary) -> Result<Vec<i8>, CompileError> {
    let mut all = vec![0; matrix.rows * matrix.k];
    for (row, out) in all.chunks_exact_mut(matrix.k).enumerate() {
        matrix.trits.read_row(row, out)?;
    }
    Ok(all)
}
