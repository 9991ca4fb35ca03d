//! Variants of a scan. They give the same results; which one is fastest depends on the machine's memory.

/// How many rows a scan computes side by side, and how far ahead it prefetches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanVariant {
    /// Rows side by side, 1 or 2. Two rows share the loads of the hidden state.
    pub rows: usize,
    /// How many bytes ahead lines are prefetched into L2, counted over all planes that are read. They are not
    /// prefetched into L1 from so far, because that would fill the few buffers that a core has for misses.
    pub far: usize,
    /// How many bytes ahead in each plane lines are then prefetched into L1; 0 if they are not.
    pub near: usize,
}

/// The variants that are worth a try. Without timing, the first is used. Prefetching into L1 was expected to be of no
/// use, because L2 answers within the time that a CPU can reorder over; yet on a Xeon of 2023 it brought the scan of a
/// high plane of 164 MB from 13.1 ms down to 11.3 ms.
pub const SCAN_VARIANTS: [ScanVariant; 8] = [
    ScanVariant { rows: 2, far: 4 << 10, near: 1280 },
    ScanVariant { rows: 1, far: 4 << 10, near: 1280 },
    ScanVariant { rows: 1, far: 8 << 10, near: 1280 },
    ScanVariant { rows: 2, far: 8 << 10, near: 1280 },
    ScanVariant { rows: 2, far: 16 << 10, near: 2560 },
    ScanVariant { rows: 1, far: 8 << 10, near: 0 },
    ScanVariant { rows: 2, far: 8 << 10, near: 0 },
    ScanVariant { rows: 2, far: 16 << 10, near: 0 },
];
