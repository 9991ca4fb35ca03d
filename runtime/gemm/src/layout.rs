//! The layout of packed tiles: columns, code and groups, and the sizes that follow from them.

use crate::GemmError;
use std::fmt;
use std::ops::Range;
use trit_format::dense243::Code;
use trit_format::kernel::{GROUP_COLUMNS, MAX_GROUPED_K, MAX_K};
use trit_format::manifest::{Grouping, PackedMatrix, TileLayout};
use trit_format::plan::{ActivationRule, DType};
use trit_format::tile;
use trit_kernels::epilogue::WeightScales;

/// What a kernel is made for: how many columns it goes over, and the code in which weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelShape {
    /// Columns of the matrix, or of a group if the matrix has groups.
    pub k: u32,
    /// The code of the weights' bytes.
    pub code: Code,
}

impl fmt::Display for KernelShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} columns stored as {}", self.k, self.code.name())
    }
}

/// How the columns of a packed matrix stand in its tiles. A value exists only for layouts that the format allows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    pub(crate) shape: KernelShape,
    /// Columns, without those that fill up the last group.
    pub(crate) k: usize,
    /// Columns that a kernel goes over at a time.
    pub(crate) columns: usize,
    /// Bytes of the codes that a kernel goes over at a time; below, those of all codes of a tile, and of a whole tile.
    pub(crate) group_bytes: usize,
    pub(crate) code_bytes: usize,
    pub(crate) tile_bytes: usize,
    /// The groups, if there are any.
    pub(crate) groups: Option<Groups>,
}

/// The groups of a tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Groups {
    pub count: usize,
    /// Bytes from one digit of an activation to the next.
    pub digit_len: usize,
    /// Type of the weights' scales, and how many groups share one; `None` if all scales are 1 and none is stored.
    pub scales: Option<(DType, usize)>,
}

/// A scale of 1 for each row of any tile, for tiles that store none.
const ONES: [u8; 4 * tile::MAX_ROWS] = {
    let (mut bytes, one, mut i) = ([0; 4 * tile::MAX_ROWS], 1f32.to_le_bytes(), 0);
    while i < bytes.len() {
        bytes[i] = one[i % 4];
        i += 1;
    }
    bytes
};

impl Layout {
    /// Tiles of `k` columns, in groups if there is a `grouping`.
    ///
    /// # Errors
    /// [`GemmError::Empty`], [`GemmError::TooLarge`] and [`GemmError::Groups`] for what the format does not hold.
    pub fn new(k: u32, code: Code, grouping: Option<Grouping>) -> Result<Layout, GemmError> {
        let most = if grouping.is_some() { MAX_GROUPED_K } else { MAX_K };
        match k {
            0 => return Err(GemmError::Empty { what: "k" }),
            _ if k > most => {
                return Err(GemmError::TooLarge { what: "k", found: k as usize, most: most as usize });
            }
            _ => {}
        }
        if let Some(Grouping { columns, scale_columns, scale }) = grouping {
            let float = matches!(scale, DType::F32 | DType::F16 | DType::Bf16);
            if !float || !GROUP_COLUMNS.contains(&columns) || !scale_columns.is_multiple_of(columns) {
                let (columns, scale_columns) = (columns as usize, scale_columns as usize);
                return Err(GemmError::Groups { columns, scale_columns });
            }
        }
        Ok(Layout::valid(TileLayout { k, grouping, code }))
    }

    /// The tiles of a packed matrix of a bundle.
    ///
    /// # Errors
    /// As [`Layout::new`]; none where the bundle's manifest was validated.
    pub fn of(matrix: &PackedMatrix) -> Result<Layout, GemmError> {
        Layout::new(matrix.k, matrix.code, matrix.grouping)
    }

    fn valid(tiles: TileLayout) -> Layout {
        let columns = tiles.kernel_k();
        let groups = tiles.grouping.map(|grouping| Groups {
            count: tiles.groups() as usize,
            digit_len: ActivationRule::digit_len(tiles.k, columns) as usize,
            scales: Some(match grouping.scale_columns {
                0 => (grouping.scale, usize::MAX),
                scale_columns => (grouping.scale, (scale_columns / columns) as usize),
            }),
        });
        Layout {
            shape: KernelShape { k: columns, code: tiles.code },
            k: tiles.k as usize,
            columns: columns as usize,
            group_bytes: tile::bytes(columns as usize),
            code_bytes: tiles.code_bytes() as usize,
            tile_bytes: tiles.tile_bytes() as usize,
            groups,
        }
    }

    /// Tiles of `k` columns, a multiple of `columns`, seen as groups without scales. Their bytes are those of tiles
    /// without groups.
    pub(crate) fn unscaled_groups(k: u32, code: Code, columns: u32) -> Result<Layout, GemmError> {
        let grouping = Grouping { columns, scale_columns: 0, scale: DType::F32 };
        let mut layout = Layout::new(k, code, Some(grouping))?;
        layout.tile_bytes = layout.code_bytes;
        if let Some(groups) = &mut layout.groups {
            groups.scales = None;
        }
        Ok(layout)
    }

    /// Number of columns.
    pub fn k(&self) -> usize {
        self.k
    }

    /// What its kernels are made for.
    pub fn kernel_shape(&self) -> KernelShape {
        self.shape
    }

    /// Rows of a tile.
    #[inline]
    pub fn tile_rows(&self) -> usize {
        self.shape.code.tile_rows()
    }

    /// Number of groups of columns; `None` if the layout has no groups.
    pub fn groups(&self) -> Option<usize> {
        self.groups.map(|groups| groups.count)
    }

    /// Bytes of one tile, with its scales.
    pub fn tile_bytes(&self) -> usize {
        self.tile_bytes
    }

    /// Bytes from one digit of a row of activations to the next, which is also the length of a row of one digit: that
    /// of whole groups, or of all columns, rounded up to 64.
    pub fn digit_len(&self) -> usize {
        self.groups.map_or(self.columns.next_multiple_of(64), |groups| groups.digit_len)
    }

    /// The codes of some groups of a tile.
    #[inline]
    pub(crate) fn codes<'a>(&self, weights: &'a [u8], tile: usize, groups: &Range<usize>) -> &'a [u8] {
        let tile = &weights[tile * self.tile_bytes..][..self.code_bytes];
        &tile[groups.start * self.group_bytes..groups.end * self.group_bytes]
    }

    /// The scales of a tile's weights.
    #[inline]
    pub(crate) fn scales<'a>(&self, weights: &'a [u8], tile: usize) -> WeightScales<'a> {
        match self.groups.and_then(|groups| groups.scales) {
            Some((dtype, groups)) => {
                let bytes = &weights[tile * self.tile_bytes..][self.code_bytes..self.tile_bytes];
                WeightScales { bytes, dtype, code: self.shape.code, groups }
            }
            None => {
                WeightScales { bytes: &ONES, dtype: DType::F32, code: self.shape.code, groups: usize::MAX }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_without_scales_are_the_bytes_of_whole_rows() {
        let whole = Layout::new(384, Code::Spread, None).unwrap();
        let groups = Layout::unscaled_groups(384, Code::Spread, 128).unwrap();
        assert_eq!((whole.tile_bytes(), whole.groups()), (groups.tile_bytes(), None));
        assert_eq!((groups.groups(), groups.kernel_shape().k), (Some(3), 128));
        assert_eq!(groups.scales(&[], 0).one(2, 79), 1.0);
    }

    #[test]
    fn what_the_format_does_not_hold_is_refused() {
        let new = |k, columns, scale_columns, scale| {
            let grouping = Some(Grouping { columns, scale_columns, scale });
            Layout::new(k, Code::SignedFix, grouping).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert_eq!(new(100, 64, 128, DType::F16), "");
        assert!(new(0, 64, 64, DType::F32).contains("k is 0"));
        assert!(new(MAX_GROUPED_K + 1, 64, 64, DType::F32).contains("at most 1048576"));
        for (columns, scale_columns, scale) in
            [(48, 48, DType::F32), (64, 96, DType::F32), (0, 0, DType::F32), (64, 64, DType::I8)]
        {
            assert!(new(100, columns, scale_columns, scale).contains("cannot be stored"), "{columns}");
        }
        assert!(matches!(
            Layout::new(MAX_K + 1, Code::SignedFix, None),
            Err(GemmError::TooLarge { what: "k", .. })
        ));
    }
}
