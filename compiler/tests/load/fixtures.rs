//! The shipped fixtures: small checkpoints that transformers' goldens were made from.

use crate::checkpoint::{read, scale};
use std::path::{Path, PathBuf};
use trit_format::plan::{Activation, ScaleRule};
use tritc::load::{LoadOptions, load};
use tritc::model::Model;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

fn loaded(name: &str) -> Model {
    let model = load(&fixture(name), &LoadOptions::default()).unwrap();
    assert_eq!(model.info.name, name);
    for layer in &model.layers {
        for projection in layer.projections() {
            let trits = read(projection).unwrap();
            let zeros = trits.iter().filter(|&&t| t == 0).count();
            assert!(
                (trits.len() / 8..trits.len() * 3 / 4).contains(&zeros),
                "{}: {zeros} zeros",
                projection.matrix.name()
            );
        }
    }
    model
}

#[test]
fn packed_bitnet_with_llama3_rope() {
    let model = loaded("bitnet-llama3-rope");
    assert_eq!((model.layers.len(), model.activation), (3, Activation::Relu2));
    assert_eq!(scale(&model.layers[0].attention().unwrap().q).1, ScaleRule::Multiply);
    assert!(model.layers[0].attention().unwrap().sub_norm.is_some() && model.head.is_none());
    assert_eq!(model.text.stop, [2]);
    // The formula in f64; no wavelength is near enough to a limit for f32 to choose otherwise.
    assert_eq!(model.ropes[0].inv_freq.len(), 16);
    for (i, &found) in model.ropes[0].inv_freq.iter().enumerate() {
        let plain = 500_000f64.powf(-(i as f64) / 16.0);
        let wavelength = 2.0 * std::f64::consts::PI / plain;
        let smooth = (64.0 / wavelength - 1.0) / (4.0 - 1.0);
        let expected = match wavelength {
            w if w > 64.0 => plain / 8.0,
            w if w < 16.0 => plain,
            _ => (1.0 - smooth) * plain / 8.0 + smooth * plain,
        };
        assert!((f64::from(found) / expected - 1.0).abs() < 1e-6, "{i}: {found} against {expected}");
    }
}

#[test]
fn latent_bitnet() {
    let model = loaded("bitnet-online");
    assert_eq!((model.layers.len(), model.hyperparameters.ffn_dim), (2, 520));
    assert_eq!(scale(&model.layers[0].attention().unwrap().q).1, ScaleRule::Divide);
}

#[test]
fn packed_llama() {
    let model = loaded("llama-bitlinear");
    assert_eq!((model.layers.len(), model.activation), (3, Activation::Silu));
    assert_eq!(scale(&model.layers[0].attention().unwrap().q).1, ScaleRule::Divide);
    assert!(model.layers[0].attention().unwrap().sub_norm.is_none() && model.head.is_some());
}
