//! Continues a text: `cargo run --release --bin generate -- fables-12m.trit "Once upon a time there was"`
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::Write;
use std::ops::ControlFlow;
use trit_runtime::generate::{GenerateOptions, generate};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::text::Detokenizer;
use trit_runtime::{LoadOptions, Model, Session, SessionOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, bundle, prompt] = &args[..] else { return Err("usage: generate BUNDLE.trit PROMPT".into()) };

    // A model is immutable and shared by any number of sessions, each of them one sequence of tokens.
    let model = Model::load(bundle.as_ref(), &LoadOptions::default())?;
    let mut session = Session::new(model.clone(), SessionOptions::default())?;
    eprintln!("{} kernels, {} threads", model.kernels(), session.threads());

    let tokenizer = model.tokenizer()?.ok_or("this model takes token ids only")?;
    let ids = tokenizer.encode(prompt, true)?;

    // As the model's authors suggest. The same seed gives the same text.
    let text = &model.manifest().text;
    let mut sampler =
        Sampler::with_rules(SamplerOptions::from_defaults(&text.sampling, 7), &text.sampling.rules);
    let options = GenerateOptions { max_new: 100, stop: &text.stop, ignore_eos: false, speculate: true };

    // A character may take several tokens: the stream gives text as soon as it is whole.
    let mut stream = Detokenizer::after(tokenizer, &ids);
    let mut problem = None;
    print!("{prompt}");
    let generation = generate(&mut session, &ids, &mut sampler, &options, &mut |id| {
        let shown = stream.push(id).map_err(|e| e.to_string()).and_then(|piece| {
            print!("{piece}");
            std::io::stdout().flush().map_err(|e| e.to_string())
        });
        match shown {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                problem = Some(e);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(problem) = problem {
        return Err(problem.into());
    }
    println!("{}", stream.finish()?);
    let speed = generation.ids.len() as f64 / generation.decode.as_secs_f64();
    eprintln!("{} tokens, {speed:.0} tokens/s", generation.ids.len());
    Ok(())
}
