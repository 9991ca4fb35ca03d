//! Which of several ways to compute the same is fastest here: timed once on a machine, then remembered.
//!
//! Variants of a kernel differ in unrolling and in how far ahead they prefetch, ways to scan planes alike, and give the
//! same results; what suits a machine depends on its memory. They are timed on the model's own weights as they stream, a
//! few milliseconds each.
#![allow(unsafe_code)]

use crate::mapping::KernelFn;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trit_format::kernel::{KernelArgs, KernelSpec};
use trit_format::manifest::Product;
use trit_format::target::Target;
use trit_format::tile;
use trit_kernels::planes::{Hidden, Planes, WAYS, scan_full, scan_high};

/// Whether timings are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tuning {
    /// What was found fastest on this machine before is used; what is not known is timed and remembered.
    #[default]
    Remembered,
    /// Everything is timed again and remembered.
    Fresh,
    /// Nothing is timed; the first variant is used.
    Off,
}

/// Weight bytes that each variant is timed on in each round: more than private caches hold, and others each time, so that
/// shared ones do not hold them either.
const BYTES: usize = 24 << 20;
/// Rounds, of which the median counts: the best of a few is luck more than merit.
const ROUNDS: usize = 11;
/// Tiles in one call, as in decode.
const TILES: usize = 16;

/// The weights of a product as a kernel goes over them.
pub(crate) struct Stream<'a> {
    weights: &'a [u8],
    /// Bytes from one run of codes to the next: scales of groups lie between them.
    run: usize,
    /// Bytes of a run's codes.
    codes: usize,
}

impl<'a> Stream<'a> {
    /// All tiles of a product.
    pub fn of(product: &Product, weights: &'a [u8]) -> Stream<'a> {
        match product.grouping {
            None => Stream { weights, run: weights.len(), codes: weights.len() },
            Some(_) => {
                Stream { weights, run: product.tile_bytes() as usize, codes: product.code_bytes() as usize }
            }
        }
    }

    /// What one call takes, all over the weights: up to [`TILES`] tiles, or groups, of `tile` bytes.
    fn pieces(&self, tile: usize) -> impl Iterator<Item = &'a [u8]> + Clone {
        let (weights, codes) = (self.weights, self.codes);
        weights.chunks_exact(self.run).flat_map(move |run| run[..codes].chunks(TILES * tile))
    }
}

/// What was found on this machine, by CPU, tier and shape.
#[derive(Default, Serialize, Deserialize)]
struct Remembered {
    /// The name of the fastest kernel, or way.
    fastest: BTreeMap<String, String>,
}

/// Chooses kernels for one tier, and ways to scan.
pub(crate) struct Tuner {
    tuning: Tuning,
    key: String,
    remembered: Remembered,
    changed: bool,
}

impl Tuner {
    /// A tuner for kernels of `target`, or for what the runtime itself computes.
    pub fn new(tuning: Tuning, target: Option<Target>) -> Tuner {
        let read = || serde_json::from_slice(&std::fs::read(file()?).ok()?).ok();
        let remembered = if tuning == Tuning::Off { None } else { read() };
        let key = match target {
            Some(target) => format!("{}, {target}", crate::cpu::name()),
            None => crate::cpu::name(),
        };
        Tuner { tuning, key, remembered: remembered.unwrap_or_default(), changed: false }
    }

    /// The index of the variant to use. All compute the same from `weights`.
    pub fn choose(&mut self, variants: &[(KernelSpec, KernelFn)], weights: &[Stream]) -> usize {
        if variants.len() < 2 {
            return 0;
        }
        let names: Vec<String> = variants.iter().map(|(spec, _)| spec.to_string()).collect();
        let tile = tile::bytes(variants[0].0.k as usize);
        let mut pieces = weights.iter().flat_map(|stream| stream.pieces(tile)).cycle();
        self.fastest("", &names, |i| time(&variants[i].0, variants[i].1, &mut pieces))
    }

    /// The index in [`WAYS`] of how to scan the high one of `planes`, or both.
    pub fn choose_way(&mut self, planes: &Planes, full: bool) -> usize {
        let names: Vec<String> =
            WAYS.iter().map(|way| format!("{}+{}+{}", way.rows, way.far, way.near)).collect();
        let layout = planes.layout();
        let (read, what) = if full { (2, "both planes") } else { (1, "high plane") };
        let what = format!("{what} of {} ", layout.hidden());
        let rows = (BYTES / (read * layout.plane_row_bytes())).clamp(1, layout.rows());
        let mut hidden = Hidden::new(layout);
        let ready = hidden.prepare(&vec![1.0; layout.hidden()]);
        let (mut approx, mut bound) = (vec![0.0; rows], vec![0.0; rows]);
        let mut starts = (0..=layout.rows() - rows).step_by(rows).cycle();
        self.fastest(&what, &names, |i| {
            let first = starts.next().unwrap_or_default();
            let planes = planes.scanned(full, WAYS[i]);
            let scan = if full { scan_full } else { scan_high };
            let start = Instant::now();
            if ready {
                scan(&planes, first..first + rows, &[&hidden], &mut [&mut approx], &mut [&mut bound]);
            }
            start.elapsed()
        })
    }

    /// The index of the fastest of `names`; `time` tells how long one takes.
    fn fastest(&mut self, what: &str, names: &[String], mut time: impl FnMut(usize) -> Duration) -> usize {
        if self.tuning == Tuning::Off {
            return 0;
        }
        // A compiler with other variants asks again.
        let key = format!("{}: {what}{}", self.key, names.join(" "));
        let known = self.remembered.fastest.get(&key).and_then(|name| names.iter().position(|n| n == name));
        if let (Some(index), Tuning::Remembered) = (known, self.tuning) {
            return index;
        }
        let mut times = vec![Vec::new(); names.len()];
        // Round by round, so that what disturbs disturbs all.
        for _ in 0..ROUNDS {
            times.iter_mut().enumerate().for_each(|(i, times)| times.push(time(i)));
        }
        times.iter_mut().for_each(|times| times.sort_unstable());
        let fastest = (0..times.len()).min_by_key(|&i| times[i][ROUNDS / 2]).unwrap_or(0);
        self.remembered.fastest.insert(key, names[fastest].clone());
        self.changed = true;
        fastest
    }

    /// Writes down what was found. A machine without a place for it times again the next time.
    pub fn remember(self) {
        if !self.changed {
            return;
        }
        let write = || {
            let file = file()?;
            std::fs::create_dir_all(file.parent()?).ok()?;
            let bytes = serde_json::to_vec_pretty(&self.remembered).ok()?;
            // Renamed when complete, so that nobody reads half of it.
            let part = file.with_extension(format!("part-{}", std::process::id()));
            std::fs::write(&part, bytes).ok()?;
            std::fs::rename(part, file).ok()
        };
        write();
    }
}

/// `trit/kernels.json` in this user's folder for caches.
fn file() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = match cfg!(windows) {
        true => absolute("LOCALAPPDATA"),
        false => absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache"))),
    };
    Some(folder?.join("trit").join("kernels.json"))
}

/// Time to go over the next [`BYTES`] bytes of `pieces`.
fn time<'a>(spec: &KernelSpec, kernel: KernelFn, pieces: &mut impl Iterator<Item = &'a [u8]>) -> Duration {
    let k = spec.k as usize;
    // Whole quads, aligned as kernels expect; their values do not matter.
    let activations = vec![0x0102_0304i32; tile::padded_k(k) / tile::QUAD];
    let mut out = [0i32; TILES * tile::ROWS];
    let sum = 0;
    let mut left = BYTES;
    let start = Instant::now();
    while let (1.., Some(tiles)) = (left, pieces.next()) {
        let args = KernelArgs {
            weights: tiles.as_ptr(),
            activations: activations.as_ptr().cast(),
            sums: &sum,
            out: out.as_mut_ptr(),
            tiles: (tiles.len() / tile::bytes(k)) as u64,
            activation_stride: 0,
            sum_stride: 0,
            out_stride: 0,
            rows: 1,
            scratch: std::ptr::null_mut(),
            activation_advance: 0,
            sum_advance: 0,
        };
        // SAFETY: bound for this k, for one row and this CPU; `tiles` are whole tiles, at most as many as `out` has
        // room for; the activations are padded.
        unsafe { kernel(&args) };
        left = left.saturating_sub(tiles.len());
    }
    start.elapsed()
}
