//! Outputs of Hugging Face transformers, from safetensors files (`tests/fixtures/README.md` lists the tensors).

use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of one file. Integers and floats alike are kept as written there.
pub struct Goldens {
    tensors: BTreeMap<String, Tensor>,
}

/// One tensor.
struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    Ids(Vec<u32>),
}

impl Goldens {
    /// Reads a file.
    ///
    /// # Panics
    /// If it is not there or holds anything but f32 and non-negative int32: then the fixture is broken.
    pub fn read(path: &Path) -> Goldens {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let words = |data: &[u8]| -> Vec<[u8; 4]> {
            data.chunks_exact(4).map(|w| w.try_into().expect("four bytes")).collect()
        };
        let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
            let words = words(view.data());
            let data = match view.dtype() {
                Dtype::F32 => Data::F32(words.into_iter().map(f32::from_le_bytes).collect()),
                Dtype::I32 => Data::Ids(words.into_iter().map(u32::from_le_bytes).collect()),
                other => panic!("{}: {name} has element type {other:?}", path.display()),
            };
            (name, Tensor { shape: view.shape().to_vec(), data })
        };
        Goldens { tensors: file.tensors().into_iter().map(tensor).collect() }
    }

    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("there is no golden tensor {name}"))
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A float tensor, row-major.
    ///
    /// # Panics
    /// If there is none of that name and type.
    pub fn floats(&self, name: &str) -> &[f32] {
        match &self.tensor(name).data {
            Data::F32(values) => values,
            Data::Ids(_) => panic!("golden tensor {name} is no float tensor"),
        }
    }

    /// A tensor of token ids.
    ///
    /// # Panics
    /// If there is none of that name and type.
    pub fn ids(&self, name: &str) -> &[u32] {
        match &self.tensor(name).data {
            Data::Ids(values) => values,
            Data::F32(_) => panic!("golden tensor {name} holds no ids"),
        }
    }

    /// The shape of a tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensor(name).shape
    }

    /// The prompts `{prefix}0`, `{prefix}1`, ... in the file.
    pub fn prompts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
        (0..).map(move |i| format!("{prefix}{i}")).take_while(|p| self.has(&format!("{p}.ids")))
    }
}
