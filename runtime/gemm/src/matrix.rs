//! The owned matrix, which is packed from trits and scales.

use crate::generate::{fastest_code, generated_targets};
use crate::tuning::{Stream, Timer, fastest};
use crate::{
    AlignedMemory, CpuTiers, GemmError, KernelShape, Kernels, Layout, MachineCode, PackedTrits,
    ReadOnlyMemory, Variants,
};
use rayon::prelude::*;
use std::fmt;
use std::time::Duration;
use trit_format::dense243::Code;
use trit_format::kernel::{MAX_DIGIT_COLUMNS, MAX_GROUPED_K};
use trit_format::manifest::{Grouping, TileLayout};
use trit_format::plan::DType;
use trit_format::target::Target;
use trit_format::tile::{self, TileEncoder};

mod multiply;

/// Most rows of a matrix.
pub const MAX_N: usize = 1 << 24;
/// Sizes of the groups of columns that kernels go over for float activations, the largest first.
const COLUMNS: [usize; 3] = [MAX_DIGIT_COLUMNS as usize, 64, 32];
/// Most columns that kernels go over at a time; longer rows are summed by groups. Some kernels add the sum of the
/// activations to a result before they shift both right by 8 bits, so that `2 * 128 * k * 256` must fit i32.
/// [`MAX_K`](trit_format::kernel::MAX_K) allows a little more, for activations that are never -128.
const MOST_WHOLE_K: u32 = 1 << 15;
/// The smallest group. Every matrix is filled up with columns of zeros to a multiple of it.
const LEAST_COLUMNS: usize = 32;
/// About how much time is spent on timing the variants of one shape.
const BUDGET: Duration = Duration::from_millis(500);

/// The scales that trits are multiplied by.
#[derive(Clone, Copy, Debug)]
pub enum Scales<'a> {
    /// One number for the whole matrix.
    Tensor(f32),
    /// One number for each row, `[n]`.
    Rows(&'a [f32]),
    /// One number for each row and each group of columns. The last group may be shorter.
    Groups {
        /// Columns of a group, a multiple of 32.
        columns: usize,
        /// `[n, ceil(k / columns)]`, row-major.
        scales: &'a [f32],
    },
}

/// How float activations are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As floats: they become integers of 24 bits with one scale for each group of columns, which is as precise as f32
    /// is for the group's largest value.
    #[default]
    Float,
    /// Int8 with one scale a row of activations, as BitNet models are trained: `s = 127 / max|x|`,
    /// `q = round(x * s)`.
    Int8PerToken,
    /// Int8 with one scale for each group of columns.
    Int8PerGroup,
}

/// Which kernels multiply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelRequest {
    /// Generated for the best tier of this CPU, or portable if none can be generated.
    #[default]
    Auto,
    /// Generated for this tier.
    Jit(Target),
    /// Portable Rust.
    Portable,
}

/// How a matrix is packed.
#[derive(Clone, Copy, Debug, Default)]
pub struct PackOptions {
    /// Which kernels multiply.
    pub kernels: KernelRequest,
    /// The code in which bytes are stored; by default [`Code::Binary`] for a matrix without zeros, else the one that the
    /// kernels are fastest with.
    pub code: Option<Code>,
    /// Whether variants of kernels are timed on this matrix. Otherwise the first is used. Results are the same.
    pub tune: bool,
}

/// Which kernels multiply a matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatrixKernels {
    /// Their tier; `None` for portable ones.
    pub target: Option<Target>,
    /// Their names; none for portable ones.
    pub names: Vec<String>,
    /// Why they are portable where [`KernelRequest::Auto`] found nothing better.
    pub note: Option<String>,
}

impl fmt::Display for MatrixKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.target, &self.note) {
            (Some(target), _) => write!(f, "jit {target}"),
            (None, None) => f.write_str("portable"),
            (None, Some(note)) => write!(f, "portable ({note})"),
        }
    }
}

/// The tiles seen by one layout, with the kernels for it.
struct View {
    layout: Layout,
    kernels: Kernels,
}

/// The scales that the matrix holds beside its tiles.
enum Held {
    Tensor(f32),
    Rows(Vec<f32>),
    /// None: those of groups stand in the tiles.
    Groups,
}

/// A ternary matrix `[n, k]`, packed and ready to multiply. It does not change, and threads may share it.
pub struct TernaryMatrix {
    n: usize,
    k: usize,
    code: Code,
    memory: ReadOnlyMemory,
    scales: Held,
    /// The tiles as whole rows, if they have no scales of groups and sums fit i32 with every code.
    whole: Option<View>,
    groups: View,
    report: MatrixKernels,
}

impl TernaryMatrix {
    /// Packs `trits`, row-major `[n, k]`, each -1, 0 or 1.
    ///
    /// # Errors
    /// [`GemmError::Empty`] and [`GemmError::TooLarge`] for sizes that are not possible, [`GemmError::Length`] if a slice has
    /// another length than its shape, [`GemmError::Trit`] with the first weight that is no trit, or that the code cannot
    /// store, [`GemmError::Scale`]
    /// with the first scale that is not finite, [`GemmError::Groups`] for groups that are no multiple of 32 columns,
    /// [`GemmError::Memory`] where memory is refused.
    pub fn pack(trits: &[i8], n: usize, k: usize, scales: Scales) -> Result<TernaryMatrix, GemmError> {
        TernaryMatrix::pack_with(trits, n, k, scales, &PackOptions::default())
    }

    /// [`TernaryMatrix::pack`] with kernels and code of the caller's choice.
    ///
    /// # Errors
    /// As [`TernaryMatrix::pack`], and [`GemmError::Target`] or [`GemmError::Generate`] if the requested kernels are
    /// not possible here.
    pub fn pack_with(
        trits: &[i8],
        n: usize,
        k: usize,
        scales: Scales,
        options: &PackOptions,
    ) -> Result<TernaryMatrix, GemmError> {
        check(trits, n, k, &scales)?;
        let (target, note) = target(options)?;
        let code = options.code.unwrap_or_else(|| match trits.par_iter().all(|&t| t != 0) {
            true => Code::Binary,
            false => fastest_code(target),
        });
        if let (false, Some(at)) = (code.has_zero(), trits.par_iter().position_first(|&t| t == 0)) {
            return Err(GemmError::Trit { row: at / k, column: at % k, value: 0 });
        }
        let (tiles, layout) = tiles(k, &scales, code)?;
        let memory = fill(trits, n, k, &scales, tiles, &layout)?;
        // Tiles without scales of groups are also read as whole rows.
        let whole = match scales {
            Scales::Groups { .. } => None,
            _ if tiles.k > MOST_WHOLE_K => None,
            _ => Some(Layout::new(tiles.k, code, None)?),
        };
        let shapes: Vec<KernelShape> = whole.iter().chain([&layout]).map(Layout::kernel_shape).collect();
        let machine = machine_code(&shapes, target, options)?;
        let kernels = |layout: &Layout| {
            let tuned =
                |variants: &Variants| if options.tune { tune(variants, layout, memory.bytes()) } else { 0 };
            let code = machine.as_ref().and_then(|m| m.kernels(layout.kernel_shape(), tuned));
            code.unwrap_or_else(Kernels::portable)
        };
        let whole = whole.map(|layout| View { kernels: kernels(&layout), layout });
        let groups = View { kernels: kernels(&layout), layout };
        let mut names: Vec<String> =
            whole.iter().chain([&groups]).flat_map(|view| view.kernels.names()).collect();
        names.dedup();
        let report = MatrixKernels { target: groups.kernels.target(), names, note };
        let scales = match scales {
            Scales::Tensor(scale) => Held::Tensor(scale),
            Scales::Rows(scales) => Held::Rows(scales.to_vec()),
            Scales::Groups { .. } => Held::Groups,
        };
        Ok(TernaryMatrix { n, k, code, memory, scales, whole, groups, report })
    }

    /// Number of rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// The code in which bytes are stored.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Which kernels multiply it.
    pub fn kernels(&self) -> &MatrixKernels {
        &self.report
    }

    /// Its tiles as they stand in memory. [`trit_format::tile`] says where a weight stands, and [`TernaryMatrix::code`]
    /// how it is stored. Columns are filled up with zeros to whole groups, and scales of groups follow each tile's
    /// codes.
    pub fn bytes(&self) -> &[u8] {
        self.memory.bytes()
    }

    /// The codes of its tiles, without scales, as canonical [Dense243](trit_format::dense243) bytes. They are the same in
    /// all codes of trits.
    pub fn canonical(&self) -> Vec<u8> {
        let canonical: [u8; 256] = std::array::from_fn(|byte| self.code.load(byte as u8).unwrap_or_default());
        self.codes().flatten().map(|&byte| canonical[usize::from(byte)]).collect()
    }

    /// Its trits `[n, k]` in canonical bytes, row by row, as `format-spec/SPEC.md` defines for arrays outside of bundles.
    ///
    /// # Errors
    /// [`GemmError::Memory`] where memory is refused.
    pub fn packed_trits(&self) -> Result<PackedTrits, GemmError> {
        PackedTrits::pack(&self.unpack(), self.k)
    }

    /// Its trits, row-major `[n, k]`.
    pub fn unpack(&self) -> Vec<i8> {
        let mut trits = vec![0; self.n * self.k];
        let columns = self.groups.layout.code_bytes / tile::LANES;
        let tiles: Vec<&[u8]> = self.codes().collect();
        trits.par_chunks_mut(self.code.tile_rows() * self.k).zip(tiles).for_each(|(rows, codes)| {
            let decoded = tile::decode(codes, columns, self.code).expect("encoded from trits");
            for (row, decoded) in rows.chunks_exact_mut(self.k).zip(decoded.chunks_exact(columns)) {
                row.copy_from_slice(&decoded[..self.k]);
            }
        });
        trits
    }

    /// The codes of each tile.
    fn codes(&self) -> impl Iterator<Item = &[u8]> {
        let layout = &self.groups.layout;
        self.memory.bytes().chunks_exact(layout.tile_bytes).map(|tile| &tile[..layout.code_bytes])
    }
}

/// Checks that a matrix and its scales can be packed.
fn check(trits: &[i8], n: usize, k: usize, scales: &Scales) -> Result<(), GemmError> {
    for (what, found, most) in [("n", n, MAX_N), ("k", k, MAX_GROUPED_K as usize)] {
        match found {
            0 => return Err(GemmError::Empty { what }),
            _ if found > most => return Err(GemmError::TooLarge { what, found, most }),
            _ => {}
        }
    }
    let length = |what, expected, found| match expected == found {
        true => Ok(()),
        false => Err(GemmError::Length { what, expected, found }),
    };
    let size = n.checked_mul(k).ok_or(GemmError::TooLarge { what: "n", found: n, most: usize::MAX / k })?;
    length("the matrix `[n, k]`", size, trits.len())?;
    if let Some(at) = trits.par_iter().position_first(|t| !(-1..=1).contains(t)) {
        return Err(GemmError::Trit { row: at / k, column: at % k, value: trits[at] });
    }
    let values = match *scales {
        Scales::Tensor(ref scale) => std::slice::from_ref(scale),
        Scales::Rows(values) => {
            length("scales `[n]`", n, values.len())?;
            values
        }
        Scales::Groups { columns, scales } => {
            if columns == 0 || columns % LEAST_COLUMNS != 0 {
                return Err(GemmError::Groups { columns, scale_columns: columns });
            }
            length("scales `[n, k / columns]`", n * k.div_ceil(columns), scales.len())?;
            scales
        }
    };
    match values.iter().position(|scale| !scale.is_finite()) {
        Some(index) => Err(GemmError::Scale { index, value: values[index] }),
        None => Ok(()),
    }
}

/// The largest group for float activations that divides `columns`, a multiple of 32.
fn group_of(columns: usize) -> usize {
    COLUMNS.into_iter().find(|group| columns.is_multiple_of(*group)).unwrap_or(LEAST_COLUMNS)
}

/// The layout in which tiles are packed, and the one by which kernels for groups see them.
fn tiles(k: usize, scales: &Scales, code: Code) -> Result<(TileLayout, Layout), GemmError> {
    match *scales {
        Scales::Groups { columns, .. } => {
            let group = group_of(columns);
            // A scale for more columns than there are is a scale for all groups that there are.
            let scale_columns = columns.min(k.next_multiple_of(group));
            let (columns, scale_columns) = (group as u32, scale_columns as u32);
            let grouping = Some(Grouping { columns, scale_columns, scale: DType::F32 });
            Ok((TileLayout { k: k as u32, grouping, code }, Layout::new(k as u32, code, grouping)?))
        }
        _ => {
            let k = k.next_multiple_of(LEAST_COLUMNS);
            let layout = Layout::unscaled_groups(k as u32, code, group_of(k) as u32)?;
            Ok((TileLayout { k: k as u32, grouping: None, code }, layout))
        }
    }
}

/// Packs the tiles into memory in huge pages.
fn fill(
    trits: &[i8],
    n: usize,
    k: usize,
    scales: &Scales,
    tiles: TileLayout,
    layout: &Layout,
) -> Result<ReadOnlyMemory, GemmError> {
    let (code, in_tile) = (tiles.code, layout.tile_rows());
    let count = n.div_ceil(in_tile);
    let mut memory = AlignedMemory::huge(count, layout.tile_bytes, "the tiles of a matrix")?;
    let encoder = TileEncoder::new(tiles);
    let pack = |encoder: &mut TileEncoder, tile: usize, out: &mut [u8]| {
        let (codes, of_groups) = out.split_at_mut(layout.code_bytes);
        let read_row = |row: usize, out: &mut [i8]| -> Result<(), GemmError> {
            let row = (tile * in_tile + row) * k;
            let (out, padding) = out.split_at_mut(k);
            match trits.get(row..row + k) {
                Some(trits) => out.copy_from_slice(trits),
                None => out.fill(0),
            }
            padding.fill(0);
            Ok(())
        };
        encoder.encode(read_row, codes)?;
        if let Scales::Groups { columns, scales } = *scales {
            let rows = scales.chunks_exact(k.div_ceil(columns));
            for (row, scales) in rows.skip(tile * in_tile).take(in_tile).enumerate() {
                for (index, scale) in scales.iter().enumerate() {
                    let at = tile::scale_at(code, index, row) * size_of::<f32>();
                    of_groups[at..][..size_of::<f32>()].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
        Ok::<(), GemmError>(())
    };
    let tiles = memory.bytes_mut().par_chunks_exact_mut(layout.tile_bytes).enumerate();
    tiles.try_for_each_init(|| encoder.clone(), |encoder, (tile, out)| pack(encoder, tile, out))?;
    memory.read_only()
}

/// The index of the variant that goes over these weights fastest.
fn tune(variants: &Variants, layout: &Layout, weights: &[u8]) -> usize {
    if variants.count() < 2 {
        return 0;
    }
    let Ok(stream) = Stream::of(layout, weights) else { return 0 };
    let streams = [stream];
    match Timer::new(variants, &streams) {
        Ok(mut timer) => fastest(variants.count(), BUDGET, |i| timer.time(i)).0,
        Err(_) => 0,
    }
}

/// The tier that kernels are generated for. If there is none, and the best was asked for, also the reason.
fn target(options: &PackOptions) -> Result<(Option<Target>, Option<String>), GemmError> {
    let tiers = CpuTiers::detect();
    match options.kernels {
        KernelRequest::Portable => Ok((None, None)),
        KernelRequest::Jit(target) if !tiers.contains(target) => Err(GemmError::Target(target)),
        KernelRequest::Jit(target) => Ok((Some(target), None)),
        KernelRequest::Auto => {
            let shape = |t| KernelShape {
                k: LEAST_COLUMNS as u32,
                code: options.code.unwrap_or_else(|| fastest_code(Some(t))),
            };
            let best = tiers.iter().filter(|&t| generated_targets(&[shape(t)]).any(|g| g == t)).max();
            let note = match best {
                None if cfg!(feature = "jit") => Some("no kernels can be generated for this CPU"),
                None => Some("built without feature jit"),
                Some(_) => None,
            };
            Ok((best, note.map(str::to_owned)))
        }
    }
}

/// Generates the kernels for some shapes, if there is a `target`.
fn machine_code(
    shapes: &[KernelShape],
    target: Option<Target>,
    options: &PackOptions,
) -> Result<Option<MachineCode>, GemmError> {
    let Some(target) = target else { return Ok(None) };
    let mut shapes = shapes.to_vec();
    shapes.dedup();
    let machine = MachineCode::generate(&shapes, target)?;
    // A caller who names a tier gets kernels for it or an error.
    match shapes.iter().find(|shape| machine.kernels(**shape, |_| 0).is_none()) {
        Some(shape) if options.kernels != KernelRequest::Auto => {
            Err(GemmError::Generate(format!("{target} has no kernels for {shape}")))
        }
        _ => Ok(Some(machine)),
    }
}
