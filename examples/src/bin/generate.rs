//! Continues a text: `cargo run --release --bin generate -- fables-12m.trit "Once upon a time there was"`
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use trit_runtime::generate::{GenerateOptions, Generator};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{LoadOptions, Model, Session, SessionOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, bundle, prompt] = &args[..] else { return Err("usage: generate BUNDLE.trit PROMPT".into()) };

    // A model is immutable and shared by any number of sessions, each of them one sequence of tokens.
    let model = Model::load(bundle.as_ref(), &LoadOptions::default())?;
    let session = Session::new(model.clone(), SessionOptions::default())?;
    eprintln!("{} kernels, {} threads", model.kernels(), session.threads());

    let tokenizer = model.tokenizer()?.ok_or("this model takes token ids only")?;
    let ids = tokenizer.encode(prompt, true)?;

    // As the model's authors suggest. The same seed gives the same text.
    let text = &model.manifest().text;
    let sampler = Sampler::with_rules(SamplerOptions::from_defaults(&text.sampling, 7), &text.sampling.rules);
    let mut generator = Generator::new(session, sampler)?;
    generator.begin(&ids, GenerateOptions { max_new: 100, ..GenerateOptions::of(&model) })?;

    // A character may take several tokens: pieces are whole characters.
    print!("{prompt}");
    for piece in &mut generator {
        print!("{}", piece?.text);
        std::io::stdout().flush()?;
    }
    println!();
    let generation = generator.generation().ok_or("it has ended")?;
    let speed = generation.ids.len() as f64 / generation.decode.as_secs_f64();
    eprintln!("{} tokens, {speed:.0} tokens/s", generation.ids.len());
    Ok(())
}
