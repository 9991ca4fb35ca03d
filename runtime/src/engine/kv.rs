//! The KV cache: the keys and values of one sequence, in pages.
//!
//! A page holds [`POSITIONS`] positions of every layer. A sequence that grows gets another page, and nothing is copied.
//! A fork shares the pages of the prefix that both sequences have in common. A shared page is copied before one of them
//! writes to it.
#![allow(unsafe_code)]

mod saved;

use super::live::{Counted, LiveBytes};
use crate::RuntimeError;
use half::f16;
use half::slice::HalfFloatSliceExt;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use trit_format::plan::KvLayer;
use trit_gemm::AlignedMemory;
use trit_kernels::attention::{CHUNK, KvElement, KvHead, KvHeadMut, key_width, value_width};

/// Positions of a page. Attention handles as many positions together.
pub(crate) const POSITIONS: usize = CHUNK;
/// A page of the cache of at least this many bytes is kept in the system's huge pages, unless it is a sequence's first
/// page: a short sequence should take only the memory that it fills, 4 KiB at a time.
const HUGE: usize = 2 << 20;

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

/// The cache of a sequence.
///
/// Workers write pages through shared references. Whoever runs workers must therefore first call [`KvCache::reserve`],
/// after which no page that is to be written is shared with another cache.
pub(crate) struct KvCache {
    layout: Arc<Layout>,
    pages: Vec<Arc<Page>>,
}

/// Where the heads of each layer stand in a page: for each head its keys, its values, then the scales of each, as
/// `trit_kernels::attention` lays them out.
struct Layout {
    kv: KvType,
    layers: Vec<LayerLayout>,
    /// Bytes of a page.
    bytes: usize,
    live: LiveBytes,
}

#[derive(Clone, Copy)]
struct LayerLayout {
    shape: KvLayer,
    /// First byte of the layer's first head.
    offset: usize,
}

/// [`POSITIONS`] positions of every layer.
struct Page(Counted);

impl LayerLayout {
    /// Elements of a head's keys, of its values, and of the scales of either.
    fn elements(&self, kv: KvType) -> [usize; 3] {
        let dim = self.shape.head_dim as usize;
        let (key, scales) = match kv {
            KvType::Int8 => (key_width::<i8>(dim), POSITIONS),
            KvType::F16 | KvType::F32 => (dim, 0),
        };
        [POSITIONS * key, POSITIONS * value_width(dim), scales]
    }

    /// Bytes of one head, a multiple of 64.
    fn head_bytes(&self, kv: KvType) -> usize {
        let ([keys, values, scales], (element, scale)) = (self.elements(kv), kv.bytes());
        (keys + values) * element + 2 * scales * scale
    }
}

impl Layout {
    fn new(shapes: &[KvLayer], kv: KvType, live: LiveBytes) -> Layout {
        let mut bytes = 0;
        let layer = |shape: &KvLayer| {
            let layer = LayerLayout { shape: *shape, offset: bytes };
            bytes += layer.head_bytes(kv) * shape.n_kv_heads as usize;
            layer
        };
        let layers = shapes.iter().map(layer).collect();
        Layout { kv, layers, bytes, live }
    }

    /// A new page, all zeros, which becomes the sequence's page `index`.
    fn page(&self, index: usize) -> Result<Page, RuntimeError> {
        let what = "a page of the KV cache";
        let huge = index > 0 && self.bytes >= HUGE;
        let memory = if huge {
            AlignedMemory::huge(1, self.bytes, what)?
        } else {
            AlignedMemory::new(1, self.bytes, what)?
        };
        Ok(Page(self.live.count(memory, self.bytes)))
    }

    /// Bytes of a page at which keys, values and both scales of a head begin, and how many elements each has.
    fn places(&self, layer: usize, head: usize) -> ([usize; 4], [usize; 4]) {
        let layer = self.layers[layer];
        let [keys, values, scales] = layer.elements(self.kv);
        let (element, scale) = self.kv.bytes();
        assert!(head < layer.shape.n_kv_heads as usize);
        let base = layer.offset + head * layer.head_bytes(self.kv);
        let (keys_end, values_end) = (keys * element, (keys + values) * element);
        let at = [0, keys_end, values_end, values_end + scales * scale];
        (at.map(|at| base + at), [keys, values, scales, scales])
    }

    /// Where keys, values and both scales of a head begin in memory, and how many elements each has.
    fn parts<T>(&self, page: &Page, layer: usize, head: usize) -> ([*mut u8; 4], [usize; 4]) {
        assert!(self.kv.bytes().0 == size_of::<T>());
        let (at, lens) = self.places(layer, head);
        (at.map(|at| page.0.base().wrapping_add(at)), lens)
    }
}

impl KvCache {
    /// Counts the memory of this cache and others.
    pub fn live(&self) -> LiveBytes {
        self.layout.live.clone()
    }

    /// An empty cache for layers of these shapes, whose memory is counted.
    pub fn new(shapes: &[KvLayer], kv: KvType, live: LiveBytes) -> KvCache {
        KvCache { layout: Arc::new(Layout::new(shapes, kv, live)), pages: Vec::new() }
    }

    /// Bytes that [`KvCache::reserve`] would take from the system.
    pub fn missing(&self, positions: usize, kept: usize) -> usize {
        let own = |page: &Arc<Page>| Arc::strong_count(page) == 1;
        let pages = kept / POSITIONS..positions.div_ceil(POSITIONS);
        pages.filter(|&index| !self.pages.get(index).is_some_and(own)).count() * self.layout.bytes
    }

    /// Makes room for `positions` positions. The first `kept` of them keep what they hold. The others may be written
    /// afterwards, because no other cache shares their pages any more.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused. What is kept has not changed then.
    pub fn reserve(&mut self, positions: usize, kept: usize) -> Result<(), RuntimeError> {
        for index in kept / POSITIONS..positions.div_ceil(POSITIONS) {
            if self.pages.get_mut(index).is_some_and(|page| Arc::get_mut(page).is_some()) {
                continue;
            }
            let mut page = self.layout.page(index)?;
            let Some(shared) = self.pages.get_mut(index) else {
                self.pages.push(Arc::new(page));
                continue;
            };
            if index * POSITIONS < kept {
                let bytes = self.layout.bytes;
                page.0.bytes_mut()[..bytes].copy_from_slice(&shared.0.bytes()[..bytes]);
            }
            *shared = Arc::new(page);
        }
        Ok(())
    }

    /// A cache that shares the pages of the first `kept` positions with this one.
    pub fn fork(&self, kept: usize) -> KvCache {
        let pages = self.pages.iter().take(kept.div_ceil(POSITIONS));
        KvCache { layout: self.layout.clone(), pages: pages.cloned().collect() }
    }

    /// Bytes of all pages, including those that other caches share.
    pub fn bytes(&self) -> usize {
        self.pages.len() * self.layout.bytes
    }

    /// Element type.
    pub fn kv(&self) -> KvType {
        self.layout.kv
    }

    /// Converts the cache to f32, which can hold whatever is appended. The first `kept` positions keep their values
    /// exactly, because every f16 is an f32. The number of reserved positions stays the same.
    ///
    /// # Errors
    /// [`RuntimeError::System`] where memory is refused; nothing changes then.
    ///
    /// # Panics
    /// If the elements are not f16.
    pub fn widen(&mut self, kept: usize) -> Result<(), RuntimeError> {
        assert_eq!(self.kv(), KvType::F16);
        let shapes: Vec<KvLayer> = self.layout.layers.iter().map(|layer| layer.shape).collect();
        let layout = Layout::new(&shapes, KvType::F32, self.layout.live.clone());
        let widened = self.pages.iter().enumerate().map(|(index, from)| {
            let page = layout.page(index)?;
            if index * POSITIONS < kept {
                for (layer, shape) in shapes.iter().enumerate() {
                    for head in 0..shape.n_kv_heads as usize {
                        self.convert(from, &layout, &page, layer, head);
                    }
                }
            }
            Ok(Arc::new(page))
        });
        self.pages = widened.collect::<Result<Vec<Arc<Page>>, RuntimeError>>()?;
        self.layout = Arc::new(layout);
        Ok(())
    }

    /// Writes a head's keys and values of f16 as f32 into a new page.
    fn convert(&self, from: &Page, layout: &Layout, to: &Page, layer: usize, head: usize) {
        let (from, lens) = self.layout.parts::<f16>(from, layer, head);
        let (to, to_lens) = layout.parts::<f32>(to, layer, head);
        assert_eq!(lens, to_lens);
        for ((from, to), len) in from.into_iter().zip(to).zip(lens).take(2) {
            // SAFETY: both parts lie inside their pages and have as many elements, aligned. Nobody writes a sequence's
            // pages while the sequence is borrowed here, and nobody else has the new page.
            let (from, to) = unsafe {
                (
                    std::slice::from_raw_parts(from.cast::<f16>(), len),
                    std::slice::from_raw_parts_mut(to.cast::<f32>(), len),
                )
            };
            from.convert_to_f32_slice(to);
        }
    }

    /// The keys and values of a head in page `page`.
    ///
    /// # Safety
    /// `T` is the element type of [`KvCache::kv`]. No worker writes this head of this page until all workers passed the
    /// next barrier.
    pub unsafe fn head<T: KvElement>(&self, page: usize, layer: usize, head: usize) -> KvHead<'_, T> {
        let ([k, v, ks, vs], [keys, values, scales, _]) =
            self.layout.parts::<T>(&self.pages[page], layer, head);
        // SAFETY: the parts lie one after the other inside the page, which is zeroed at first and aligned: each begins
        // at a multiple of 64 bytes. The caller promises that nobody writes them.
        unsafe {
            KvHead::new(
                std::slice::from_raw_parts(k.cast(), keys),
                std::slice::from_raw_parts(v.cast(), values),
                std::slice::from_raw_parts(ks.cast(), scales),
                std::slice::from_raw_parts(vs.cast(), scales),
                self.layout.layers[layer].shape.head_dim as usize,
            )
        }
    }

    /// The keys and values of a head in page `page`, to be written.
    ///
    /// # Safety
    /// `T` is the element type of [`KvCache::kv`]. [`KvCache::reserve`] has made the page this cache's own, and the
    /// cache has not been forked since. No other worker touches this head of this page until all workers passed the
    /// next barrier.
    pub unsafe fn head_mut<T: KvElement>(&self, page: usize, layer: usize, head: usize) -> KvHeadMut<'_, T> {
        let ([k, v, ks, vs], [keys, values, scales, _]) =
            self.layout.parts::<T>(&self.pages[page], layer, head);
        // SAFETY: as in `head`; the parts are apart, and the caller promises exclusive access.
        unsafe {
            KvHeadMut::new(
                std::slice::from_raw_parts_mut(k.cast(), keys),
                std::slice::from_raw_parts_mut(v.cast(), values),
                std::slice::from_raw_parts_mut(ks.cast(), scales),
                std::slice::from_raw_parts_mut(vs.cast(), scales),
                self.layout.layers[layer].shape.head_dim as usize,
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIM: usize = 6;

    fn cache(kv: KvType) -> KvCache {
        KvCache::new(
            &[KvLayer { n_heads: 4, n_kv_heads: 2, head_dim: DIM as u32 }; 2],
            kv,
            LiveBytes::default(),
        )
    }

    /// Appends a position to every head of a cache that has room for it.
    fn append<T: KvElement>(cache: &KvCache, position: usize, row: impl Fn(usize, usize) -> Vec<f32>) {
        for (layer, head) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let (k, v) = (row(layer, head), row(layer + 2, head));
            // SAFETY: no worker runs, `T` belongs to the cache, and the tests reserve before they append.
            let mut head = unsafe { cache.head_mut::<T>(position / POSITIONS, layer, head) };
            head.append(position % POSITIONS, 1, &k, &v, DIM);
        }
    }

    /// All that a page holds, padding included.
    fn bytes(cache: &KvCache, page: usize) -> &[u8] {
        &cache.pages[page].0.bytes()[..cache.layout.bytes]
    }

    fn row(position: usize, seed: usize) -> impl Fn(usize, usize) -> Vec<f32> {
        move |layer, head| {
            let x = |i| (position * 7 + layer * 5 + head * 3 + i + seed) % 13;
            (0..DIM).map(|i| x(i) as f32).collect()
        }
    }

    /// What is appended page by page is what is read; nothing moves when a cache grows.
    #[test]
    fn growing_copies_nothing() {
        fn check<T: KvElement>(kv: KvType) {
            let (mut grown, mut whole) = (cache(kv), cache(kv));
            whole.reserve(1000, 0).unwrap();
            let mut first = std::ptr::null_mut();
            for position in 0..1000 {
                grown.reserve(position + 1, position).unwrap();
                append::<T>(&grown, position, row(position, 0));
                append::<T>(&whole, position, row(position, 0));
                if position == 0 {
                    first = grown.pages[0].0.base();
                }
            }
            assert_eq!(grown.pages[0].0.base(), first);
            assert_eq!(grown.pages.len(), 4);
            for page in 0..4 {
                assert!(bytes(&grown, page) == bytes(&whole, page), "{kv:?} page {page}");
            }
        }
        check::<f16>(KvType::F16);
        check::<f32>(KvType::F32);
        check::<i8>(KvType::Int8);
    }

    /// A fork shares whole pages; where either appends to a shared page, the other does not see it.
    #[test]
    fn forks_share_pages_until_one_writes() {
        for kept in [300, 256, 512, 1, 0] {
            let mut first = cache(KvType::F32);
            first.reserve(600, 0).unwrap();
            (0..600).for_each(|position| append::<f32>(&first, position, row(position, 0)));
            let before: Vec<Vec<u8>> = (0..3).map(|page| bytes(&first, page).to_vec()).collect();
            let mut fork = first.fork(kept);
            assert_eq!(fork.pages.len(), kept.div_ceil(POSITIONS));
            assert!(fork.pages.iter().zip(&first.pages).all(|(a, b)| Arc::ptr_eq(a, b)));
            fork.reserve(kept + 100, kept).unwrap();
            (kept..kept + 100).for_each(|position| append::<f32>(&fork, position, row(position, 1)));
            for (page, before) in before.iter().enumerate() {
                assert!(bytes(&first, page) == before, "{kept}: page {page} of the first");
            }
            for page in 0..kept / POSITIONS {
                assert!(Arc::ptr_eq(&fork.pages[page], &first.pages[page]), "{kept}: page {page} is shared");
            }
            // What the fork must be: the same text, appended from the beginning.
            let mut expected = cache(KvType::F32);
            expected.reserve(kept + 100, 0).unwrap();
            for position in 0..kept + 100 {
                append::<f32>(&expected, position, row(position, usize::from(position >= kept)));
            }
            for (page, head) in (0..expected.pages.len()).flat_map(|page| [(page, 0), (page, 1)]) {
                let rows = (kept + 100 - page * POSITIONS).min(POSITIONS);
                assert_eq!(keys(&fork, page, head, rows), keys(&expected, page, head, rows), "{kept} {page}");
            }
            // And the first may go on beside it.
            first.reserve(700, 600).unwrap();
        }
    }

    /// The keys of some positions of a page of f32, `[rows, DIM]`.
    fn keys(cache: &KvCache, page: usize, head: usize, rows: usize) -> Vec<f32> {
        let (at, len) = cache.layout.parts::<f32>(&cache.pages[page], 1, head);
        // SAFETY: the part lies inside the page and holds floats; no worker runs.
        let keys = unsafe { std::slice::from_raw_parts(at[0].cast::<f32>(), len[0]) };
        (0..rows * DIM).map(|i| keys[i / DIM / 16 * 16 * DIM + i % DIM * 16 + i / DIM % 16]).collect()
    }

    /// A widened cache has the values that it had, and takes what f16 cannot hold; it grows like any other.
    #[test]
    fn widening_keeps_what_is_there() {
        const CUT: usize = 300;
        // Not all of them are f16s.
        let row = |position: usize| {
            move |layer: usize, head: usize| -> Vec<f32> {
                let x = |i: usize| (position * 7 + head * 3 + i) as f32 / 13.0 - 25.0 * layer as f32;
                (0..DIM).map(|i| x(i) * if position >= CUT { 1e4 } else { 1.0 }).collect()
            }
        };
        // What the cache must be: one of f32 from the start, with rounded values before the cut.
        let (mut widened, mut expected) = (cache(KvType::F16), cache(KvType::F32));
        for position in 0..700 {
            widened.reserve(position + 1, position).unwrap();
            expected.reserve(position + 1, position).unwrap();
            if position == CUT {
                widened.widen(position).unwrap();
                assert_eq!(widened.kv(), KvType::F32);
            }
            if position < CUT {
                append::<f16>(&widened, position, row(position));
                append::<f32>(&expected, position, |layer, head| {
                    row(position)(layer, head).iter().map(|x| f16::from_f32(*x).to_f32()).collect()
                });
            } else {
                append::<f32>(&widened, position, row(position));
                append::<f32>(&expected, position, row(position));
            }
        }
        for page in 0..3 {
            assert!(bytes(&widened, page) == bytes(&expected, page), "page {page}");
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
