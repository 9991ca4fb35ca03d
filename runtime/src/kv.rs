//! The keys and values of one sequence.
#![allow(unsafe_code)]

use crate::RuntimeError;
use crate::arena::Memory;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::str::FromStr;
use trit_format::plan::KvLayer;
use trit_kernels::attention::{KvElement, KvHead, KvHeadMut, padded_positions, value_width};

/// Element type of a KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit integers with a scale for each key and each value of a head: half the memory and traffic of f16.
    Int8,
    /// 32-bit floats, for comparisons.
    F32,
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<KvType, String> {
        match name {
            "f16" => Ok(KvType::F16),
            "f32" => Ok(KvType::F32),
            "int8" => Ok(KvType::Int8),
            _ => Err("expected f16, f32 or int8".into()),
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KvType::F16 => "f16",
            KvType::F32 => "f32",
            KvType::Int8 => "int8",
        })
    }
}

impl KvType {
    /// Bytes of an element, and of its scales for each head and position.
    fn bytes(self) -> (usize, usize) {
        match self {
            KvType::F16 => (2, 0),
            KvType::F32 => (4, 0),
            KvType::Int8 => (1, 4),
        }
    }
}

/// Positions there is room for at first; room doubles when it is used up.
const FIRST: usize = 256;
/// Bytes of a layer from which on it is kept in huge pages.
const HUGE: usize = 2 << 20;

/// The caches of every layer for one sequence.
pub(crate) struct KvCache {
    shapes: Vec<KvLayer>,
    kv: KvType,
    layers: Vec<LayerCache>,
    capacity: usize,
    most: usize,
}

/// One layer's cache: for each KV head its keys, its values, then for each its scales, as `trit_kernels::attention` lays
/// them out.
pub(crate) struct LayerCache {
    memory: Memory,
    shape: KvLayer,
    kv: KvType,
    capacity: usize,
}

impl KvCache {
    /// An empty cache for sequences of up to `most` tokens.
    pub fn new(shapes: &[KvLayer], kv: KvType, most: usize) -> KvCache {
        KvCache { shapes: shapes.to_vec(), kv, layers: Vec::new(), capacity: 0, most }
    }

    /// Makes room for `positions` positions; the first `kept` keep what they hold.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused.
    pub fn reach(&mut self, positions: usize, kept: usize) -> Result<(), RuntimeError> {
        if positions <= self.capacity {
            return Ok(());
        }
        let capacity = padded_positions(positions.next_power_of_two().max(FIRST).min(self.most));
        for (index, shape) in self.shapes.iter().enumerate() {
            let layer = LayerCache::new(*shape, self.kv, capacity)?;
            match self.layers.get_mut(index) {
                Some(old) => {
                    layer.copy(old, kept);
                    *old = layer;
                }
                None => self.layers.push(layer),
            }
        }
        self.capacity = capacity;
        Ok(())
    }

    /// Element type.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// Goes on in f32, which holds whatever is appended. The first `kept` positions keep what they hold: every f16 is an f32.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused; nothing changes then.
    ///
    /// # Panics
    /// If the elements are no f16.
    pub fn widen(&mut self, kept: usize) -> Result<(), RuntimeError> {
        let widened = self.layers.iter().map(|old| {
            let layer = LayerCache::new(old.shape, KvType::F32, old.capacity)?;
            layer.convert(old, kept);
            Ok(layer)
        });
        self.layers = widened.collect::<Result<Vec<LayerCache>, RuntimeError>>()?;
        self.kv = KvType::F32;
        Ok(())
    }

    /// The cache of one layer.
    pub fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }
}

impl LayerCache {
    fn new(shape: KvLayer, kv: KvType, capacity: usize) -> Result<LayerCache, RuntimeError> {
        let mut layer = LayerCache { memory: Memory::new(0, 0, "")?, shape, kv, capacity };
        let bytes = layer.head_bytes();
        let what = "the KV cache of a layer";
        layer.memory = match bytes * shape.n_kv_heads as usize >= HUGE {
            true => Memory::huge(shape.n_kv_heads as usize, bytes, what)?,
            false => Memory::new(shape.n_kv_heads as usize, bytes, what)?,
        };
        Ok(layer)
    }

    /// Element type.
    pub fn kv(&self) -> KvType {
        self.kv
    }

    /// Elements of a head's keys and of its values.
    fn elements(&self) -> (usize, usize) {
        let dim = self.shape.head_dim as usize;
        (self.capacity * dim, self.capacity * value_width(dim))
    }

    /// Bytes of one head, a multiple of 64: capacities are multiples of 16.
    fn head_bytes(&self) -> usize {
        let ((keys, values), (element, scale)) = (self.elements(), self.kv.bytes());
        (keys + values) * element + 2 * self.capacity * scale
    }

    /// Where keys, values and both scales of `head` begin, and how many elements each has.
    fn parts<T>(&self, head: usize) -> ([*mut u8; 4], [usize; 4]) {
        let (keys, values) = self.elements();
        let (element, scale) = self.kv.bytes();
        assert!(head < self.shape.n_kv_heads as usize && element == size_of::<T>());
        let scales = if scale > 0 { self.capacity } else { 0 };
        let base = self.memory.base().wrapping_add(head * self.head_bytes());
        let (keys_end, values_end) = (keys * element, (keys + values) * element);
        let at = [0, keys_end, values_end, values_end + scales * scale];
        (at.map(|at| base.wrapping_add(at)), [keys, values, scales, scales])
    }

    /// The keys and values of a head.
    ///
    /// # Safety
    /// `T` is the element type of [`LayerCache::kv`]. No worker writes this head until all workers passed the next barrier.
    pub unsafe fn head<T: KvElement>(&self, head: usize) -> KvHead<'_, T> {
        let ([k, v, ks, vs], [keys, values, scales, _]) = self.parts::<T>(head);
        // SAFETY: the parts lie one after the other inside the layer's memory, which is zeroed at first and aligned:
        // each begins at a multiple of 16 elements. The caller promises that nobody writes them.
        unsafe {
            KvHead::new(
                std::slice::from_raw_parts(k.cast(), keys),
                std::slice::from_raw_parts(v.cast(), values),
                std::slice::from_raw_parts(ks.cast(), scales),
                std::slice::from_raw_parts(vs.cast(), scales),
                self.shape.head_dim as usize,
            )
        }
    }

    /// The keys and values of a head, to be written.
    ///
    /// # Safety
    /// `T` is the element type of [`LayerCache::kv`]. No other worker touches this head until all workers passed the next
    /// barrier.
    pub unsafe fn head_mut<T: KvElement>(&self, head: usize) -> KvHeadMut<'_, T> {
        let ([k, v, ks, vs], [keys, values, scales, _]) = self.parts::<T>(head);
        // SAFETY: as in `head`; the parts are apart, and the caller promises exclusive access.
        unsafe {
            KvHeadMut::new(
                std::slice::from_raw_parts_mut(k.cast(), keys),
                std::slice::from_raw_parts_mut(v.cast(), values),
                std::slice::from_raw_parts_mut(ks.cast(), scales),
                std::slice::from_raw_parts_mut(vs.cast(), scales),
                self.shape.head_dim as usize,
            )
        }
    }

    /// Takes over the first `positions` positions of a smaller cache of the same shape.
    fn copy(&self, from: &LayerCache, positions: usize) {
        let kept = padded_positions(positions).min(from.capacity);
        let (element, scale) = self.kv.bytes();
        let dim = self.shape.head_dim as usize;
        // Elements of one position in each part; blocks of keys are whole.
        let sizes = [dim * element, value_width(dim) * element, scale, scale];
        for head in 0..self.shape.n_kv_heads as usize {
            let (to, from) = match self.kv {
                KvType::F16 => (self.parts::<f16>(head).0, from.parts::<f16>(head).0),
                KvType::F32 => (self.parts::<f32>(head).0, from.parts::<f32>(head).0),
                KvType::Int8 => (self.parts::<i8>(head).0, from.parts::<i8>(head).0),
            };
            for ((to, from), size) in to.into_iter().zip(from).zip(sizes) {
                // SAFETY: `kept` positions fit both capacities, so both ranges lie inside their part; the memories are
                // different mappings, and nobody else has either now.
                unsafe { std::ptr::copy_nonoverlapping(from, to, kept * size) };
            }
        }
    }

    /// Takes over the first `positions` positions of a cache of f16 of the same shape and capacity, as f32.
    fn convert(&self, from: &LayerCache, positions: usize) {
        assert!(self.kv == KvType::F32 && from.kv == KvType::F16 && self.capacity == from.capacity);
        let kept = padded_positions(positions).min(from.capacity);
        let dim = self.shape.head_dim as usize;
        for head in 0..self.shape.n_kv_heads as usize {
            let ([to_keys, to_values, ..], [keys, values, ..]) =
                (self.parts::<f32>(head).0, from.parts::<f16>(head).0);
            for (to, from, len) in [(to_keys, keys, kept * dim), (to_values, values, kept * value_width(dim))]
            {
                // SAFETY: `kept` positions fit both capacities, so both ranges lie inside their part, where elements are
                // aligned; the memories are different mappings, and nobody else has either now.
                let (to, from) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(to.cast::<f32>(), len),
                        std::slice::from_raw_parts(from.cast::<f16>(), len),
                    )
                };
                from.convert_to_f32_slice(to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is appended before and after a cache grew is what is read.
    #[test]
    fn growing_keeps_what_is_there() {
        fn check<T: KvElement + PartialEq + std::fmt::Debug>(kv: KvType) {
            let shape = KvLayer { n_heads: 4, n_kv_heads: 2, head_dim: 6 };
            let mut cache = KvCache::new(&[shape; 2], kv, 1000);
            let mut whole = KvCache::new(&[shape; 2], kv, 1000);
            whole.reach(1000, 0).unwrap();
            for position in 0..1000 {
                cache.reach(position + 1, position).unwrap();
                for head in 0..2 {
                    let row: Vec<f32> = (0..6).map(|i| ((position * 7 + head * 3 + i) % 13) as f32).collect();
                    for cache in [&cache, &whole] {
                        // SAFETY: no worker runs, and `T` belongs to `kv`.
                        let mut head = unsafe { cache.layer(1).head_mut::<T>(head) };
                        head.append(position, 1, &row, &row, 0);
                    }
                }
            }
            for head in 0..2 {
                for part in 0..4 {
                    let bytes = |cache: &KvCache| {
                        let (at, len) = cache.layer(1).parts::<T>(head);
                        let size = if part < 2 { size_of::<T>() } else { 4 };
                        // SAFETY: the part lies inside the memory; no worker runs.
                        unsafe { std::slice::from_raw_parts(at[part], len[part] * size) }.to_vec()
                    };
                    assert_eq!(bytes(&cache), bytes(&whole), "{kv:?} head {head} part {part}");
                }
            }
        }
        check::<f16>(KvType::F16);
        check::<f32>(KvType::F32);
        check::<i8>(KvType::Int8);
    }

    /// A widened cache has the values that it had, and takes what f16 cannot hold; it grows like any other.
    #[test]
    fn widening_keeps_what_is_there() {
        const DIM: usize = 6;
        const CUT: usize = 300;
        let shape = KvLayer { n_heads: 4, n_kv_heads: 2, head_dim: DIM as u32 };
        let row = |position: usize, head: usize, value: bool| -> Vec<f32> {
            // Not all of them are f16s.
            let x = |i: usize| (position * 7 + head * 3 + i) as f32 / 13.0 - if value { 50.0 } else { 0.0 };
            (0..DIM).map(|i| x(i) * if position >= CUT { 1e4 } else { 1.0 }).collect()
        };
        let rounded = |x: &f32| f16::from_f32(*x).to_f32();
        let mut cache = KvCache::new(&[shape; 2], KvType::F16, 1000);
        // What the cache must be: one of f32 from the start, with rounded values before the cut.
        let mut expected = KvCache::new(&[shape; 2], KvType::F32, 1000);
        for position in 0..700 {
            if position == CUT {
                cache.widen(position).unwrap();
                assert_eq!(cache.kv(), KvType::F32);
            }
            for cache in [&mut cache, &mut expected] {
                cache.reach(position + 1, position).unwrap();
            }
            for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let [k, v] = [row(position, head, false), row(position, head, true)];
                let exact = |row: &[f32]| match position < CUT {
                    true => row.iter().map(rounded).collect(),
                    false => row.to_vec(),
                };
                let (cache, expected) = (cache.layer(layer), expected.layer(layer));
                // SAFETY: no worker runs, and the types are those of the caches.
                unsafe {
                    match cache.kv() {
                        KvType::F16 => cache.head_mut::<f16>(head).append(position, 1, &k, &v, DIM),
                        _ => cache.head_mut::<f32>(head).append(position, 1, &k, &v, DIM),
                    }
                    expected.head_mut::<f32>(head).append(position, 1, &exact(&k), &exact(&v), DIM);
                }
            }
        }
        for (layer, head, part) in (0..8).map(|i| (i / 4, i / 2 % 2, i % 2)) {
            let values = |cache: &KvCache| {
                let (at, len) = cache.layer(layer).parts::<f32>(head);
                // SAFETY: the part lies inside the memory and holds floats; no worker runs.
                unsafe { std::slice::from_raw_parts(at[part].cast::<f32>(), len[part]) }.to_vec()
            };
            assert_eq!(values(&cache), values(&expected), "layer {layer} head {head} part {part}");
        }
    }

    #[test]
    fn types_have_names() {
        assert_eq!(
            ["f16", "f32", "int8"].map(|n| n.parse::<KvType>().unwrap()),
            [KvType::F16, KvType::F32, KvType::Int8]
        );
        assert!("q4".parse::<KvType>().unwrap_err().contains("int8"));
    }
}
