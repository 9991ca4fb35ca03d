//! Pages of the cache as files have them: position after position, however kernels want them in memory.
#![deny(unsafe_code)]

use super::{KvCache, KvType};
use half::f16;
use std::sync::Arc;
use trit_format::saved::KvElement;
use trit_kernels::attention::{key_place, value_place};

impl From<KvType> for KvElement {
    fn from(kv: KvType) -> KvElement {
        match kv {
            KvType::F16 => KvElement::F16,
            KvType::F32 => KvElement::F32,
            KvType::Int8 => KvElement::Int8,
        }
    }
}

/// Where an element of a position stands in memory: by position, element and `head_dim`.
type Place = fn(usize, usize, usize) -> usize;

impl KvType {
    /// Where keys and where values stand in memory.
    fn places(self) -> [Place; 2] {
        match self {
            KvType::F16 => [key_place::<f16>, value_place::<f16>],
            KvType::F32 => [key_place::<f32>, value_place::<f32>],
            KvType::Int8 => [key_place::<i8>, value_place::<i8>],
        }
    }
}

impl KvCache {
    /// An empty cache of the same shapes, whose memory counts as this one's does.
    pub fn emptied(&self, kv: KvType) -> KvCache {
        let shapes: Vec<_> = self.layout.layers.iter().map(|layer| layer.shape).collect();
        KvCache::new(&shapes, kv, self.layout.live.clone())
    }

    /// Appends the first `rows` positions of page `page` to `out`, as [`trit_format::saved::Shapes::page_bytes`] lays
    /// them out.
    pub fn save_page(&self, page: usize, rows: usize, out: &mut Vec<u8>) {
        let memory = self.pages[page].0.bytes();
        let ((element, scale), [key_place, value_place]) = (self.kv().bytes(), self.kv().places());
        let collect = match element {
            1 => collect::<1>,
            2 => collect::<2>,
            _ => collect::<4>,
        };
        for (layer, head, dim) in self.heads() {
            let ([keys, values, key_scales, value_scales], lens) = self.layout.places(layer, head);
            collect(&memory[keys..][..lens[0] * element], rows, dim, key_place, out);
            collect(&memory[values..][..lens[1] * element], rows, dim, value_place, out);
            for scales in [key_scales, value_scales] {
                out.extend_from_slice(&memory[scales..][..rows * scale]);
            }
        }
    }

    /// Fills the first `rows` positions of page `page` with what [`KvCache::save_page`] wrote. The page must have been
    /// reserved for this cache alone; a page that is shared stays as it is.
    ///
    /// # Panics
    /// If `from` has another length than such a page.
    pub fn restore_page(&mut self, page: usize, rows: usize, mut from: &[u8]) {
        let ((element, scale), [key_place, value_place]) = (self.kv().bytes(), self.kv().places());
        let spread = match element {
            1 => spread::<1>,
            2 => spread::<2>,
            _ => spread::<4>,
        };
        let heads: Vec<_> = self.heads().collect();
        let Some(memory) = Arc::get_mut(&mut self.pages[page]) else { return };
        let memory = memory.0.bytes_mut();
        let mut take = |len: usize| {
            let (part, rest) = from.split_at(len);
            from = rest;
            part
        };
        for (layer, head, dim) in heads {
            let ([keys, values, key_scales, value_scales], lens) = self.layout.places(layer, head);
            let part = take(rows * dim * element);
            spread(part, dim, key_place, &mut memory[keys..][..lens[0] * element]);
            let part = take(rows * dim * element);
            spread(part, dim, value_place, &mut memory[values..][..lens[1] * element]);
            for scales in [key_scales, value_scales] {
                memory[scales..][..rows * scale].copy_from_slice(take(rows * scale));
            }
        }
        assert!(from.is_empty(), "{} bytes are left of a page", from.len());
    }

    /// Layer, head and `head_dim` of each head, in the order of the file.
    fn heads(&self) -> impl Iterator<Item = (usize, usize, usize)> + use<'_> {
        self.layout.layers.iter().enumerate().flat_map(|(layer, place)| {
            let shape = place.shape;
            (0..shape.n_kv_heads as usize).map(move |head| (layer, head, shape.head_dim as usize))
        })
    }
}

/// Appends `[rows, dim]` elements of `E` bytes, which stand in `memory` where `place` says.
fn collect<const E: usize>(memory: &[u8], rows: usize, dim: usize, place: Place, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + rows * dim * E, 0);
    let (from, to) = (memory.as_chunks::<E>().0, out[start..].as_chunks_mut::<E>().0);
    for (position, row) in to.chunks_exact_mut(dim).enumerate() {
        for (i, element) in row.iter_mut().enumerate() {
            *element = from[place(position, i, dim)];
        }
    }
}

/// Puts `[rows, dim]` elements of `E` bytes where `place` says.
fn spread<const E: usize>(from: &[u8], dim: usize, place: Place, memory: &mut [u8]) {
    let (from, to) = (from.as_chunks::<E>().0, memory.as_chunks_mut::<E>().0);
    for (position, row) in from.chunks_exact(dim).enumerate() {
        for (i, element) in row.iter().enumerate() {
            to[place(position, i, dim)] = *element;
        }
    }
}
