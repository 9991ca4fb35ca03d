//! The keys and values of one sequence.

use crate::RuntimeError;
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
    /// An empty cache.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn new(layers: &[KvLayer], kv: KvType, positions: usize) -> Result<KvCache, RuntimeError> {
        let layer = |layer: &KvLayer| {
            let width = layer.n_kv_heads as usize * layer.head_dim as usize;
            Ok(match kv {
                KvType::F16 => LayerCache::F16 {
                    keys: Rows::zeroed(positions, width)?,
                    values: Rows::zeroed(positions, width)?,
                },
                KvType::F32 => LayerCache::F32 {
                    keys: Rows::zeroed(positions, width)?,
                    values: Rows::zeroed(positions, width)?,
                },
            })
        };
        Ok(KvCache { layers: layers.iter().map(layer).collect::<Result<_, RuntimeError>>()? })
    }
}
