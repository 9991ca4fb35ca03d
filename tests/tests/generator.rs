//! The iterator of tokens and text: the same tokens as the function gives, all of the text and nothing twice, whatever ends
//! it, and a session that can go on.

use std::ops::ControlFlow;
use std::sync::Arc;
use trit_runtime::generate::{Finish, GenerateOptions, Generator, Piece, generate};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::text::Tokenizer;
use trit_runtime::{LoadOptions, Model, RuntimeError, Session, SessionOptions, TrustPolicy, Tuning};
use trit_tests::workbench::{compile, repository};

const PROMPT: &str = "Once upon a time there was a king who had a daughter, and the king";

fn model(name: &str) -> Arc<Model> {
    let bundle = compile(&repository().join("examples/models/fables-12m"), name);
    let options =
        LoadOptions { trust: TrustPolicy::everything(), tuning: Tuning::Off, ..LoadOptions::default() };
    Model::load(&bundle, &options).unwrap()
}

fn tokenizer(model: &Model) -> &Tokenizer {
    model.tokenizer().unwrap().unwrap()
}

fn session(model: &Arc<Model>) -> Session {
    Session::new(model.clone(), SessionOptions { threads: Some(1), ..SessionOptions::default() }).unwrap()
}

fn generator(model: &Arc<Model>) -> Generator {
    Generator::new(session(model), Sampler::new(SamplerOptions::default())).unwrap()
}

fn options(model: &Model, max_new: usize) -> GenerateOptions {
    GenerateOptions { max_new, ..GenerateOptions::of(model) }
}

/// The tokens and the joined text of what is left.
fn rest(generator: &mut Generator) -> (Vec<u32>, String) {
    let pieces: Vec<Piece> = generator.map(Result::unwrap).collect();
    (
        pieces.iter().filter_map(|piece| piece.id).collect(),
        pieces.into_iter().map(|piece| piece.text).collect(),
    )
}

#[test]
fn tokens_and_text_are_those_of_the_whole() {
    let model = model("generator");
    let prompt = tokenizer(&model).encode(PROMPT, true).unwrap();
    for draft in [false, true] {
        for max_new in [0, 1, 60] {
            let wanted = GenerateOptions { draft, ..options(&model, max_new) };
            let mut alone = session(&model);
            let mut sampler = Sampler::new(SamplerOptions::default());
            let go_on = &mut |_| ControlFlow::Continue(());
            let whole = generate(&mut alone, &prompt, &mut sampler, &wanted, go_on).unwrap();
            let mut generator = generator(&model);
            generator.begin(&prompt, wanted).unwrap();
            let (ids, text) = rest(&mut generator);
            assert_eq!(ids, whole.ids);
            assert_eq!(text, tokenizer(&model).decode(&ids, true).unwrap());
            let last = generator.generation().unwrap();
            assert_eq!((&last.ids, last.finish), (&ids, whole.finish));
            assert_eq!(generator.session().tokens(), alone.tokens());
            assert!(generator.next().is_none(), "it stays at its end");
        }
    }
}

/// Left in the middle, interrupted, stopped by a text: what follows is as with a new generator, and what both texts have in
/// common is not run again.
#[test]
fn whatever_ends_it_the_next_text_is_right() {
    let model = model("generator-again");
    let prompt = tokenizer(&model).encode(PROMPT, true).unwrap();
    let mut fresh = generator(&model);
    fresh.begin(&prompt, options(&model, 50)).unwrap();
    let (expected, text) = rest(&mut fresh);
    let mut used = generator(&model);
    for ended in 0..12 {
        used.begin(&prompt, options(&model, 50)).unwrap();
        assert!(used.session().position() >= prompt.len());
        for _ in 0..ended {
            used.next().unwrap().unwrap();
        }
        match ended % 3 {
            // Left alone: the next text begins.
            0 => {}
            1 => {
                used.interrupt();
                let (more, _) = rest(&mut used);
                assert!(more.is_empty(), "interrupted, it gives no more tokens");
                let last = used.generation().unwrap();
                assert_eq!((last.finish, &last.ids[..]), (Finish::Interrupted, &expected[..ended]));
            }
            _ => assert!(used.session_mut().position() < prompt.len() + ended),
        }
    }
    used.begin(&prompt, options(&model, 50)).unwrap();
    assert_eq!(rest(&mut used), (expected.clone(), text.clone()));

    // A text to stop at is no part of the text, wherever tokens end.
    for stop in [" king", "k", "e ", ". ", &text[3..20]] {
        let stop_texts = vec!["never said".to_owned(), stop.to_owned(), String::new()];
        used.begin(&prompt, GenerateOptions { stop_texts, ..options(&model, 50) }).unwrap();
        let (_, before) = rest(&mut used);
        let finish = used.generation().unwrap().finish;
        match text.find(stop) {
            Some(end) => assert_eq!((before.as_str(), finish), (&text[..end], Finish::Stop), "{stop:?}"),
            None => assert_eq!((before.as_str(), finish), (text.as_str(), Finish::Length), "{stop:?}"),
        }
    }

    // The answer is kept: a text that goes on after it runs only what is new.
    used.begin(&prompt, options(&model, 20)).unwrap();
    let (answer, _) = rest(&mut used);
    let held = used.session().position();
    let longer = [&prompt[..], &answer, &tokenizer(&model).encode(" And then", false).unwrap()].concat();
    assert_eq!(used.session().tokens()[..], longer[..held]);
    used.begin(&longer, options(&model, 20)).unwrap();
    let (ids, _) = rest(&mut used);
    let mut fresh = generator(&model);
    fresh.begin(&longer, options(&model, 20)).unwrap();
    assert_eq!(ids, rest(&mut fresh).0);
}

#[test]
fn errors_leave_a_generator_that_can_begin_again() {
    let model = model("generator-errors");
    let prompt = tokenizer(&model).encode(PROMPT, true).unwrap();
    let mut generator = generator(&model);
    assert!(generator.next().is_none() && generator.generation().is_none());
    for bad in [&[][..], &[4096][..]] {
        assert!(matches!(generator.begin(bad, options(&model, 5)), Err(RuntimeError::Input(_))));
        assert!(generator.next().is_none());
    }
    let long = vec![5; 2000];
    assert!(matches!(generator.begin(&long, options(&model, 5)), Err(RuntimeError::ContextFull { .. })));
    generator.begin(&prompt, options(&model, 5)).unwrap();
    assert_eq!(rest(&mut generator).0.len(), 5);

    let mut of_ids = Generator::of_ids(session(&model), Sampler::new(SamplerOptions::default()));
    let stop_texts = vec!["x".to_owned()];
    let refused = of_ids.begin(&prompt, GenerateOptions { stop_texts, ..options(&model, 5) });
    assert!(matches!(refused, Err(RuntimeError::Input(_))));
    of_ids.begin(&prompt, options(&model, 5)).unwrap();
    let (ids, text) = rest(&mut of_ids);
    assert_eq!((ids.len(), text.as_str()), (5, ""));
}

/// A prompt after which the session has all logits is not run again, and gives the same tokens.
#[test]
fn a_prompt_that_has_run_is_continued_at_once() {
    let model = model("generator-prefilled");
    let prompt = tokenizer(&model).encode(PROMPT, true).unwrap();
    let mut fresh = generator(&model);
    fresh.begin(&prompt, options(&model, 30)).unwrap();
    let expected = rest(&mut fresh);
    let greedy = || Sampler::new(SamplerOptions::default());
    let mut prefilled = session(&model);
    prefilled.prefill(&prompt).unwrap();
    let mut ran = Generator::new(prefilled, greedy()).unwrap();
    ran.begin(&prompt, options(&model, 30)).unwrap();
    assert_eq!(rest(&mut ran), expected);
    assert_eq!(ran.generation().unwrap().prompt, 0);
    // Logits of tokens that were taken back are not those after the last token, nor are those that nobody asked for.
    let mut session = ran.into_session();
    session.prefill(&[prompt[0]]).unwrap();
    assert!(session.last_logits().is_some());
    session.truncate(prompt.len() - 1);
    assert!(session.last_logits().is_none());
    session.advance(&prompt[prompt.len() - 1..], &[]).unwrap();
    assert!(session.last_logits().is_none());
    let mut again = Generator::new(session, greedy()).unwrap();
    again.begin(&prompt, options(&model, 30)).unwrap();
    assert_eq!(rest(&mut again), expected);
    assert_eq!(again.generation().unwrap().prompt, 1);
}
