//! How planes are scanned: which way is fastest depends on the machine's memory.

/// How many rows go side by side, and what is asked for before it is read. Results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// 1 or 2. Two share what is loaded of the hidden state.
    pub rows: usize,
    /// Bytes ahead that are asked for in L2, of the planes together. Lines on their way to L1 would fill the few buffers
    /// a core has for misses.
    pub far: usize,
    /// Bytes ahead in each plane that are then asked for in L1; 0: none.
    pub near: usize,
}

/// Those worth a try; without timing, the first. Asking for lines in L1 was expected of no use, since L2 answers within what
/// a CPU reorders; on a Xeon of 2023 it took 13.1 ms for a high plane of 164 MB to 11.3.
pub const WAYS: [Way; 8] = [
    Way { rows: 2, far: 4 << 10, near: 1280 },
    Way { rows: 1, far: 4 << 10, near: 1280 },
    Way { rows: 1, far: 8 << 10, near: 1280 },
    Way { rows: 2, far: 8 << 10, near: 1280 },
    Way { rows: 2, far: 16 << 10, near: 2560 },
    Way { rows: 1, far: 8 << 10, near: 0 },
    Way { rows: 2, far: 8 << 10, near: 0 },
    Way { rows: 2, far: 16 << 10, near: 0 },
];
