//! A made-up model with all that a model can have, run by the runtime and by the compiler's own forward pass.

#[expect(dead_code, reason = "the compiler's own tests use more of it")]
#[path = "../../compiler/tests/bundle/mixed.rs"]
mod mixed;

use trit_tests::distance::relative_l2;
use trit_tests::ways::{all_logits, ways};
use tritc::compile::targets::{TargetChoice, resolve};
use tritc::model::Activations;
use tritc::progress::Silent;
use tritc::{compile, reference};

/// Both round alike, so that int8 differs only where a sum in another order moves a value over a boundary.
#[test]
fn every_step_computes_what_the_reference_does() {
    let folder = tempfile::tempdir().unwrap();
    let ids: Vec<u32> = (0..9).map(|i| (i * 37 + 5) % mixed::VOCAB as u32).collect();
    for (activations, allowed) in [(Activations::F32, 1e-5), (Activations::Int8Groups, 2e-2)] {
        let model = mixed::model(activations);
        let out = folder.path().join(format!("{activations:?}.trit"));
        compile::compile(&model, &out, &resolve(&[TargetChoice::All]).unwrap(), &Silent).unwrap();
        let states = reference::forward(&model, &ids, |_, _| ()).unwrap();
        let states = states.chunks(model.hyperparameters.hidden_dim as usize);
        let expected: Vec<f32> = states.flat_map(|s| reference::head(&model, s).unwrap()).collect();
        for way in ways() {
            let far = relative_l2(&all_logits(&mut way.open(&out), &ids), &expected);
            assert!(far <= allowed, "{way:?} {activations:?}: relative L2 {far}");
        }
    }
}
