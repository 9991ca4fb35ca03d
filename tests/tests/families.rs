//! What single families have and the checks of `golden.rs` do not reach.

use trit_runtime::KernelChoice;
use trit_tests::distance::{max_abs, relative_l2};
use trit_tests::golden::Goldens;
use trit_tests::ways::{Way, all_logits, ways};
use trit_tests::workbench::{compile, compile_with, fixture};

/// Relative L2 of logits, where activations are int8.
const NOISE: f64 = 3e-2;

/// A prompt beyond LongRoPE's original context, for which transformers takes the long factors.
#[test]
fn longropes_long_factors_match() {
    let folder = fixture("llama-longrope-head");
    let bundle = compile_with(&folder, "families-longrope-long", &["--context", "150"]);
    let goldens = Goldens::read(&folder.join("golden.f32.safetensors"));
    for way in ways() {
        let mut session = way.open(&bundle);
        let logits = session.prefill(goldens.ids("long.ids")).unwrap();
        let noise = relative_l2(logits, goldens.floats("long.last_logits"));
        assert!(noise <= NOISE, "{way:?}: relative L2 {noise}");
    }
}

/// The goldens are MiniCPM's published formulas in float64.
#[test]
fn minicpm_matches() {
    matches("minicpm-g32");
}

/// Heads are normalized after RoPE.
#[test]
fn hunyuan_matches() {
    matches("hunyuan-sherry");
}

/// With float activations nothing is rounded to int8, so every prompt is held to what f32 leaves; with int8 by groups
/// to the noise of that.
fn matches(name: &str) {
    let folder = fixture(name);
    let [tight, prompts] =
        ["golden.tight.safetensors", "golden.f32.safetensors"].map(|file| Goldens::read(&folder.join(file)));
    let floats = compile_with(&folder, &format!("families-{name}-f32"), &["--activations", "f32"]);
    let int8 = compile(&folder, &format!("families-{name}-int8"));
    for way in ways() {
        let mut session = way.open(&floats);
        for prompt in tight.prompts("t") {
            let ours = all_logits(&mut session, tight.ids(&format!("{prompt}.ids")));
            let far = max_abs(&ours, tight.floats(&format!("{prompt}.logits")));
            assert!(far <= 1e-3, "{way:?} {prompt}: a logit differs by {far}");
        }
        for (bundle, limit) in [(&floats, 1e-4), (&int8, NOISE)] {
            let mut session = way.open(bundle);
            for prompt in prompts.prompts("p") {
                session.truncate(0);
                let logits = session.prefill(prompts.ids(&format!("{prompt}.ids"))).unwrap();
                let noise = relative_l2(logits, prompts.floats(&format!("{prompt}.last_logits")));
                assert!(noise <= limit, "{way:?} {prompt}: relative L2 {noise}, limit {limit}");
            }
        }
    }
}

/// Models of two families in one process, a token of each in turn, give what each gives alone.
#[test]
fn families_run_side_by_side() {
    let names = ["gemma3-online-rmsnorm", "bitnet-1bitllm"];
    let bundles = names.map(|name| compile(&fixture(name), &format!("families-{name}")));
    let way = Way { kernels: KernelChoice::Embedded, cpu: None, threads: 2, chunk: 1 };
    let ids: Vec<u32> = (3..40).collect();
    let alone = [0, 1].map(|i| all_logits(&mut way.open(&bundles[i]), &ids));
    let mut sessions = [0, 1].map(|i| way.open(&bundles[i]));
    let mut together = [Vec::new(), Vec::new()];
    for &id in &ids {
        for (session, logits) in sessions.iter_mut().zip(&mut together) {
            logits.extend_from_slice(session.decode(id).unwrap());
        }
    }
    for i in [0, 1] {
        assert_eq!(together[i].len(), alone[i].len());
        assert!(max_abs(&together[i], &alone[i]) <= 1e-5, "{}", names[i]);
    }
}
