//! The head by planes on trained models' own hidden states, in the bundle `tritc` writes: the same largest logits, and
//! how many rows it takes. The measurement: `cargo test --release --test planes -- --ignored --nocapture`.

use std::path::Path;
use trit_format::container::SectionKind;
use trit_format::planes::Layout;
use trit_kernels::head::dot_rows;
use trit_kernels::planes::{
    Hidden, Planes, TopLower, extend_shortlist, narrow_shortlist, scan_full, scan_high, tighten_bounds,
};
use trit_runtime::text::Tokenizer;
use trit_tests::workbench::{repository, shared};
use tritc::bundle::Bundle;
use tritc::model::Model;
use tritc::reference;

/// A model, and a bundle of it.
struct Subject {
    model: Model,
    bundle: Bundle,
    layout: Layout,
}

impl Subject {
    fn new(checkpoint: &Path) -> Subject {
        let model = tritc::load::load(checkpoint, &Default::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out.trit");
        tritc::compile::compile(&model, &out, &[], &tritc::progress::Silent).unwrap();
        let bundle = Bundle::open(&out).unwrap();
        let h = &model.hyperparameters;
        let layout = Layout::new(h.vocab_size.into(), h.hidden_dim.into()).unwrap();
        Subject { model, bundle, layout }
    }

    fn planes(&self) -> Planes<'_> {
        let offset = self.bundle.manifest().planes[0].offset as usize;
        Planes::new(&self.bundle.section(SectionKind::Planes)[offset..], self.layout)
    }

    /// The logits of a final state `[hidden]`.
    fn exact(&self, h: &[f32]) -> Vec<f32> {
        let table = self.model.head().dense().unwrap();
        let mut logits = vec![0.0; self.layout.rows()];
        dot_rows((*table.data).as_ref(), table.dtype, h.len(), 0..logits.len(), h, &mut logits);
        logits
    }

    /// The rows a scan leaves, and those of them that tighter bounds leave.
    fn left(&self, hidden: &Hidden, k: usize, full: bool) -> [Vec<u32>; 2] {
        let (n, planes) = (self.layout.rows(), self.planes());
        let (mut approx, mut bound) = (vec![0.0; n], vec![0.0; n]);
        let scan = if full { scan_full } else { scan_high };
        scan(&planes, 0..n, &[hidden], &mut [&mut approx], &mut [&mut bound]);
        let mut top = TopLower::new(k);
        top.take(&approx, &bound);
        let mut scanned = Vec::new();
        extend_shortlist(top.threshold(), &approx, &bound, 0, &mut scanned);
        let mut narrowed = scanned.clone();
        let (approx, bound) = (&mut approx[..narrowed.len()], &mut bound[..narrowed.len()]);
        tighten_bounds(&planes, &narrowed, hidden, approx, bound);
        top.reset(k);
        top.take(approx, bound);
        narrow_shortlist(top.threshold(), approx, bound, &mut narrowed);
        [scanned, narrowed]
    }
}

/// The k largest: larger logits first, then smaller ids.
fn largest(k: usize, ids: impl Iterator<Item = u32>, logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = ids.collect();
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
    ids.truncate(k);
    ids
}

#[test]
fn the_largest_logits_are_those_of_the_whole_product() {
    let subject = Subject::new(&repository().join("examples/models/fables-12m"));
    let model = &subject.model;
    let vocab_size = model.hyperparameters.vocab_size;
    let tokenizer = Tokenizer::new(model.tokenizer.as_deref().unwrap(), &model.text, vocab_size).unwrap();
    let text =
        "The fox looked up at the raven in the old tree and said, \"What a fine voice you must have!\" The";
    let ids = tokenizer.encode(text, true).unwrap();
    let states = reference::forward(&subject.model, &ids, |_, _| ()).unwrap();
    let (vocab, mut hidden) = (subject.layout.rows() as u32, Hidden::new(subject.layout));
    for h in states.chunks(subject.layout.hidden()) {
        let logits = subject.exact(h);
        assert!(hidden.prepare(h));
        for k in [1, 40] {
            for full in [false, true] {
                let [scanned, narrowed] = subject.left(&hidden, k, full);
                assert_eq!(largest(k, narrowed.into_iter(), &logits), largest(k, 0..vocab, &logits));
                // With both planes hardly more than those it is after.
                assert!(!full || scanned.len() < 3 * k + 100, "{} for {k}", scanned.len());
            }
        }
    }
}

#[test]
#[ignore = "a measurement"]
fn candidates_of_trained_models() {
    let Some(file) = shared("goldens/val-8k.json", "candidates of trained models") else { return };
    let ids: serde_json::Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let ids: Vec<u32> = serde_json::from_value(ids["ids"].clone()).unwrap();
    for name in ["fables-12m", "fables-30m"] {
        let Some(checkpoint) = shared(&format!("models/{name}"), "candidates of trained models") else {
            return;
        };
        let subject = Subject::new(&checkpoint);
        let (vocab, mut hidden) = (subject.layout.rows(), Hidden::new(subject.layout));
        let mut states = Vec::new();
        for window in ids.chunks(200).take(3) {
            states.extend(reference::forward(&subject.model, window, |_, _| ()).unwrap());
        }
        for k in [1, 40] {
            for full in [false, true] {
                let mut counts: [Vec<usize>; 2] = Default::default();
                for h in states.chunks(subject.layout.hidden()) {
                    assert!(hidden.prepare(h));
                    let left = subject.left(&hidden, k, full);
                    let logits = subject.exact(h);
                    assert_eq!(
                        largest(k, left[1].iter().copied(), &logits),
                        largest(k, 0..vocab as u32, &logits)
                    );
                    left.iter().zip(&mut counts).for_each(|(left, counts)| counts.push(left.len()));
                }
                for (stage, mut counts) in ["scan", "tighten"].into_iter().zip(counts) {
                    counts.sort_unstable();
                    let share = |part: usize| 100.0 * counts[counts.len() * part / 100] as f64 / vocab as f64;
                    println!(
                        "{name} top-{k}, {} planes, {stage}: median {:.2}%, 95th percentile {:.2}% of rows",
                        if full { "both" } else { "high" },
                        share(50),
                        share(95)
                    );
                }
            }
        }
    }
}
