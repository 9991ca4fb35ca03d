//! Bytes of weights that a decoded token reads: what the memory's bandwidth is compared with.

use trit_runtime::Profile;
use trit_runtime::format::manifest::Manifest;
use trit_runtime::format::plan::Step;
use trit_runtime::format::planes::{Layout, ROW_BYTES};

/// Bytes of all ternary products of a token, a ternary head among them, each matrix once.
pub fn ternary_bytes(manifest: &Manifest) -> u64 {
    let bytes = |step: &Step| match step {
        Step::Ternary { product, .. } => manifest.products[product.0 as usize].bytes().unwrap_or(0),
        _ => 0,
    };
    manifest.plan.body.iter().chain(&manifest.plan.head).map(bytes).sum()
}

/// Bytes of all matrices of floats beside the head that a token is multiplied with.
pub fn linear_bytes(manifest: &Manifest) -> u64 {
    let bytes = |step: &Step| match step {
        Step::Linear { table, .. } => manifest.tensors[table.0 as usize].bytes().unwrap_or(0),
        _ => 0,
    };
    manifest.plan.body.iter().chain(&manifest.plan.head).map(bytes).sum()
}

/// Bytes of the head that each of the profiled tokens read, on average: the whole table, or of its planes what was scanned,
/// and the rows of planes and table that this left undecided.
pub fn head_bytes(manifest: &Manifest, profile: &Profile) -> f64 {
    let heads = |step: &Step| {
        let Step::Head { table, planes, .. } = step else { return 0.0 };
        let table = &manifest.tensors[table.0 as usize];
        let whole = table.bytes().unwrap_or(0) as f64;
        let layout = match (planes, &table.shape[..]) {
            (Some(_), &[rows, hidden]) => Layout::new(rows, hidden),
            _ => None,
        };
        let Some(layout) = layout.filter(|_| profile.heads > 0) else { return whole };
        let len = |range: std::ops::Range<u64>| (range.end - range.start) as f64;
        // A row that the high plane leaves undecided is read anew from both.
        let row = 2 * layout.plane_row_bytes() + layout.blocks() + ROW_BYTES;
        let scan = len(layout.high()) + len(layout.scales()) + len(layout.records());
        let scanned = profile.heads as f64 * scan + profile.full_scans as f64 * len(layout.low());
        let rows =
            profile.refined as f64 * row as f64 + profile.survivors as f64 * whole / layout.rows() as f64;
        let unscanned = profile.tokens.saturating_sub(profile.heads) as f64 * whole;
        (scanned + rows + unscanned) / profile.tokens.max(1) as f64
    };
    manifest.plan.head.iter().map(heads).sum()
}

/// GB/s at which ternary products were read, over the time from the start of each until all workers were done with it;
/// `None` where no time was spent. Of decoded tokens: each read every matrix once.
pub fn ternary_gb_s(manifest: &Manifest, profile: &Profile) -> Option<f64> {
    let ternary = profile.kinds().filter(|(name, ..)| name.starts_with("ternary"));
    let seconds: f64 = ternary.map(|(_, work, wait)| work + wait).sum();
    let bytes = ternary_bytes(manifest) as f64 * profile.regions as f64;
    (seconds > 0.0).then_some(bytes / 1e9 / seconds)
}
