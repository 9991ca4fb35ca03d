//! What does the model expect at each place of a text?
//! `cargo run --release --bin logits -- fables-12m.trit "The King and the Queen"`
#![forbid(unsafe_code)]

use std::error::Error;
use trit_runtime::{LoadOptions, Model, Session, SessionOptions};

/// Tokens shown at each place.
const SHOWN: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, bundle, text] = &args[..] else { return Err("usage: logits BUNDLE.trit TEXT".into()) };
    let model = Model::load(bundle.as_ref(), &LoadOptions::default())?;
    let mut session = Session::new(model.clone(), SessionOptions::default())?;
    let tokenizer = model.tokenizer()?.ok_or("this model takes token ids only")?;
    let ids = tokenizer.encode(text, true)?;

    // `prefill` gives the logits after the last token; this gives those after each, `[vocab_size]`.
    let mut expected: Vec<Vec<(u32, f32)>> = Vec::new();
    session.forward_all(&ids, &mut |_, logits| expected.push(most_probable(logits)))?;

    for (id, expected) in ids.iter().zip(expected) {
        print!("{:<20}", format!("{:?}", tokenizer.decode(&[*id], false)?));
        for (next, probability) in expected {
            print!("  {:>4.1}% {:?}", probability * 100.0, tokenizer.decode(&[next], false)?);
        }
        println!();
    }
    Ok(())
}

/// The most probable tokens with their probabilities, the softmax of the logits.
fn most_probable(logits: &[f32]) -> Vec<(u32, f32)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f32 = logits.iter().map(|l| (l - max).exp()).sum();
    let mut all: Vec<(u32, f32)> = (0..).zip(logits.iter().map(|l| (l - max).exp() / sum)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(SHOWN);
    all
}
