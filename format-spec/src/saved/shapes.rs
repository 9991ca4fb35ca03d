//! What a position and a recurrent state of a plan hold, and so how many bytes they take in a file.

use super::{KvElement, StateElement};
use crate::manifest::Manifest;
use crate::plan::{KvLayer, StateShape, TensorId};

/// The KV layers and recurrent states of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shapes {
    /// KV layers.
    pub kv: Vec<KvLayer>,
    /// Recurrent states, in the order of the steps.
    pub states: Vec<StateShape>,
}

impl Shapes {
    /// Those of a validated manifest.
    pub fn of(manifest: &Manifest) -> Shapes {
        let shape = |id: TensorId| manifest.tensors.get(id.0 as usize).map(|tensor| tensor.shape.as_slice());
        Shapes { kv: manifest.plan.kv.clone(), states: manifest.plan.states(shape).collect() }
    }

    /// Bytes of `rows` positions: of each layer's heads the keys `[rows, head_dim]`, the values `[rows, head_dim]`, and
    /// where the type has scales those of the keys `[rows]` and of the values `[rows]`. `None` where they overflow.
    pub fn page_bytes(&self, kv: KvElement, rows: u32) -> Option<u64> {
        let (element, scale) = kv.bytes();
        let layer = |layer: &KvLayer| {
            let head = u64::from(layer.head_dim).checked_mul(element)?.checked_add(scale)?.checked_mul(2)?;
            head.checked_mul(u64::from(layer.n_kv_heads))
        };
        let position = self.kv.iter().try_fold(0u64, |sum, shape| sum.checked_add(layer(shape)?))?;
        position.checked_mul(u64::from(rows))
    }

    /// Bytes of the recurrent states at one position: of each convolution its last inputs, f32 `[rows, channels]`; of
    /// each delta rule the matrices `[values, key_dim, value_dim]`. `None` where they overflow.
    pub fn state_bytes(&self, element: StateElement) -> Option<u64> {
        let bytes = |shape: &StateShape| match *shape {
            StateShape::Inputs { rows, channels } => {
                (u64::from(rows) * u64::from(channels)).checked_mul(StateElement::F32.bytes())
            }
            StateShape::Matrices(heads) => (u64::from(heads.key_dim) * u64::from(heads.value_dim))
                .checked_mul(u64::from(heads.values))?
                .checked_mul(element.bytes()),
        };
        self.states.iter().try_fold(0u64, |sum, shape| sum.checked_add(bytes(shape)?))
    }
}
