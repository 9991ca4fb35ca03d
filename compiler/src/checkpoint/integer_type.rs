//! Types of GGUF files that store floats as blocks of small integers. `weights::integers` says what is in a block.

/// A type that stores floats as blocks of small integers with scales. Embeddings, heads and norms may be stored so; linear
/// layers may not, because these integers are more than trits. All of them are llama.cpp's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IntegerType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// Number in files, name, weights of a block, bytes of a block.
const TYPES: [(IntegerType, u32, &str, usize, usize); 13] = [
    (IntegerType::Q4_0, 2, "Q4_0", 32, 18),
    (IntegerType::Q4_1, 3, "Q4_1", 32, 20),
    (IntegerType::Q5_0, 6, "Q5_0", 32, 22),
    (IntegerType::Q5_1, 7, "Q5_1", 32, 24),
    (IntegerType::Q8_0, 8, "Q8_0", 32, 34),
    (IntegerType::Q2K, 10, "Q2_K", 256, 84),
    (IntegerType::Q3K, 11, "Q3_K", 256, 110),
    (IntegerType::Q4K, 12, "Q4_K", 256, 144),
    (IntegerType::Q5K, 13, "Q5_K", 256, 176),
    (IntegerType::Q6K, 14, "Q6_K", 256, 210),
    (IntegerType::Iq4Nl, 20, "IQ4_NL", 32, 18),
    (IntegerType::Iq4Xs, 23, "IQ4_XS", 256, 136),
    (IntegerType::Mxfp4, 39, "MXFP4", 32, 17),
];

impl IntegerType {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [IntegerType; TYPES.len()] = {
        let mut all = [IntegerType::Q4_0; TYPES.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = TYPES[at].0;
            at += 1;
        }
        all
    };

    /// The type of that number in files.
    pub(crate) fn of(id: u32) -> Option<IntegerType> {
        TYPES.iter().find(|(_, number, ..)| *number == id).map(|(kind, ..)| *kind)
    }

    fn row(self) -> &'static (IntegerType, u32, &'static str, usize, usize) {
        // The table is in the order of the variants, which the test below asserts.
        &TYPES[self as usize]
    }

    /// Its name in llama.cpp.
    pub(crate) fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights of a block.
    pub(crate) fn weights(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub(crate) fn bytes(self) -> usize {
        self.row().4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_type_in_order() {
        for (at, (kind, id, ..)) in TYPES.iter().enumerate() {
            assert_eq!((*kind as usize, IntegerType::of(*id)), (at, Some(*kind)));
        }
        assert_eq!(IntegerType::of(35), None);
    }
}
