//! The keys and values of one sequence.

use crate::arena::Rows;
use half::f16;
use std::str::FromStr;
use trit_format::plan::KvLayer;

/// Element type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats: half the memory and traffic.
    #[default]
    F16,
    /// 32-bit floats, for comparisons.
    F32,
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<KvType, String> {
        match name {
            "f16" => Ok(KvType::F16),
            "f32" => Ok(KvType::F32),
            "int8" => Err("int8 KV caches are not available yet; use f16".into()),
            _ => Err("expected f16 or f32".into()),
        }
    }
}

/// One layer's cache, rows of `[n_kv_heads * head_dim]`.
pub(crate) enum LayerCache {
    F16 { keys: Rows<f16>, values: Rows<f16> },
    F32 { keys: Rows<f32>, values: Rows<f32> },
}

/// The caches of every layer for one sequence of up to `positions` tokens. Memory is committed as it is used.
pub(crate) struct KvCache {
    pub layers: Vec<LayerCache>,
}

impl KvCache {
    pub fn new(layers: &[KvLayer], kv: KvType, positions: usize) -> KvCache {
        let layer = |layer: &KvLayer| {
            let width = layer.n_kv_heads as usize * layer.head_dim as usize;
            match kv {
                KvType::F16 => LayerCache::F16 {
                    keys: Rows::zeroed_f16(positions, width),
                    values: Rows::zeroed_f16(positions, width),
                },
                KvType::F32 => LayerCache::F32 {
                    keys: Rows::zeroed_f32(positions, width),
                    values: Rows::zeroed_f32(positions, width),
                },
            }
        };
        KvCache { layers: layers.iter().map(layer).collect() }
    }
}
