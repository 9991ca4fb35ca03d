//! Recoding: weights that are stored for one kind of CPU are stored anew for another.
//!
//! Every code of trits holds five in a byte, so that each byte can be replaced by its counterpart in place, and the layout
//! stays. Signs have one code alone, which every CPU reads. Where a bundle was compiled for CPUs with a code of their own and
//! runs on another CPU, its copy in memory is changed once at load, and kernels are generated for the code that every CPU
//! reads.

use super::storage::Storage;
use crate::RuntimeError;
use rayon::prelude::*;
use trit_format::FormatError;
use trit_format::dense243::Code;
use trit_format::manifest::PackedMatrix;

/// The code of the same weights that kernels of every tier read.
pub(crate) const fn common(code: Code) -> Code {
    match code {
        Code::Binary => Code::Binary,
        _ => Code::SignedFix,
    }
}

/// Bytes that one thread changes at a time.
const PIECE: usize = 1 << 20;

/// Converts `weights`, the section with the tiles of `packed_matrices`, to the codes that [`common`] gives, and updates the
/// matrices' records.
///
/// # Errors
/// [`RuntimeError::Format`] naming the first packed matrix with a byte that stands for no trits.
pub(crate) fn to_common(
    storage: &Storage,
    packed_matrices: &mut [PackedMatrix],
    weights: &mut [u8],
) -> Result<(), RuntimeError> {
    for matrix in packed_matrices.iter_mut().filter(|p| p.code != common(p.code)) {
        let len = matrix.bytes().expect("validated") as usize;
        let (tile, codes) = (matrix.tile_bytes() as usize, matrix.code_bytes() as usize);
        let table = matrix.code.table_to(common(matrix.code));
        let tiles = &mut weights[matrix.offset as usize..][..len];
        // Scales of groups follow a tile's codes and stay as they are.
        let per_piece = (PIECE / tile).max(1) * tile;
        let change =
            |piece: &mut [u8]| piece.chunks_mut(tile).all(|tile| Code::recode(&table, &mut tile[..codes]));
        if !tiles.par_chunks_mut(per_piece).all(change) {
            let problem = format!(
                "has a byte that is no five trits stored as {}; the file is damaged, compile the model again",
                matrix.code.name()
            );
            let record = format!("product {}", matrix.name);
            return Err(storage.format(FormatError::Record { record, problem }));
        }
        matrix.code = common(matrix.code);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn bytes_keep_their_trits() {
        for code in Code::ALL {
            let table = code.table_to(common(code));
            for canonical in (0..code.values()).map(|canonical| canonical as u8) {
                let new = table[usize::from(code.store(canonical).unwrap())];
                assert_eq!(common(code).load(new as u8), Some(canonical));
            }
            assert_eq!(table.iter().filter(|&&new| new > 255).count(), 256 - code.values());
        }
    }
}
