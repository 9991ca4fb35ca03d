//! Answers that guides restrict, among others in one scheduler: each is what it is alone, and no guide holds up another
//! request.

use serde_json::json;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};
use trit_runtime::generate::guide::{Guide, GuideError, TokenSet};
use trit_runtime::generate::{Finish, GenerateOptions, Generator};
use trit_runtime::guide::{Grammar, GuideFactory};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::scheduler::{Ended, Event, Request, RequestError, Scheduler, SchedulerOptions, Ticket};
use trit_runtime::{KernelChoice, Model, Session, SessionOptions};
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{compile, repository};

static FABLES: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let bundle = compile(&repository().join("examples/models/fables-12m"), "scheduler-guided");
    load(&bundle, KernelChoice::Auto)
});

fn scheduler(slots: usize) -> Scheduler {
    let options = SchedulerOptions { slots, ..SchedulerOptions::default() };
    Scheduler::new(engine(&FABLES, 2, 96), options).unwrap()
}

struct Pending(Receiver<Event>, Ticket);

fn submit(scheduler: &Scheduler, request: Request) -> Pending {
    let (sender, events) = channel();
    let ticket = scheduler.submit(request, move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    Pending(events, ticket.unwrap())
}

impl Pending {
    /// Waits for the end.
    fn answer(self) -> (Vec<u32>, Result<Ended, RequestError>) {
        let (mut ids, mut end) = (Vec::new(), None);
        for event in self.0 {
            match event {
                Event::Began { .. } => {}
                Event::Token(chosen) => ids.push(chosen.id),
                Event::Ended(how) => end = Some(how),
            }
        }
        (ids, end.expect("it ends"))
    }
}

fn request(ids: &[u32], options: SamplerOptions, guide: Option<Box<dyn Guide>>) -> Request {
    let sampler = Sampler::new(options);
    Request { sampler, max_new: 60, guide, ..Request::new(&FABLES, ids.to_vec()) }
}

/// What the same request gives alone.
fn alone(ids: &[u32], options: SamplerOptions, guide: Option<Box<dyn Guide>>) -> (Vec<u32>, Finish) {
    let session = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let session = Session::new(FABLES.clone(), session).unwrap();
    let mut generator = Generator::of_ids(session, Sampler::new(options));
    let how = GenerateOptions { max_new: 60, draft: false, ..GenerateOptions::of(&FABLES) };
    match guide {
        Some(guide) => generator.begin_guided(ids, how, guide).unwrap(),
        None => generator.begin(ids, how).unwrap(),
    }
    (&mut generator).for_each(|piece| drop(piece.unwrap()));
    let generation = generator.generation().unwrap();
    (generation.ids.clone(), generation.finish)
}

#[test]
fn guided_answers_among_others_are_what_they_are_alone() {
    let factory = GuideFactory::new(&FABLES).unwrap();
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["a", "b"],
        "properties": {"a": {"type": "array", "items": {"type": "integer"}, "maxItems": 4}, "b": {"type": "boolean"}}
    });
    let grammars = [
        None,
        Some(Grammar::JsonSchema(schema)),
        Some(Grammar::Regex("[a-z]{3}( [a-z]{3}){2,4}".into())),
        Some(Grammar::JsonObject),
        Some(Grammar::Choice(vec!["yes".into(), "no".into()])),
    ];
    let mut random = Random(5);
    let asks: Vec<(Vec<u32>, SamplerOptions, &Option<Grammar>)> = (0..20)
        .map(|i| {
            let len = 1 + random.below(120);
            let greedy = SamplerOptions::default();
            let options = match i % 3 {
                0 => greedy,
                1 => SamplerOptions { temperature: 1.0, top_k: 30, seed: i as u64, ..greedy },
                _ => SamplerOptions { temperature: 0.8, repeat_penalty: 1.2, seed: i as u64, ..greedy },
            };
            (random.ids(len, 4000), options, &grammars[i % grammars.len()])
        })
        .collect();
    let guide = |grammar: &Option<Grammar>| grammar.as_ref().map(|g| factory.guide(g, None).unwrap());
    for slots in [3, 16] {
        let scheduler = scheduler(slots);
        let pending: Vec<Pending> = asks
            .iter()
            .map(|(ids, options, grammar)| submit(&scheduler, request(ids, *options, guide(grammar))))
            .collect();
        for (pending, (ids, options, grammar)) in pending.into_iter().zip(&asks) {
            let (found, ended) = pending.answer();
            let expected = alone(ids, *options, guide(grammar));
            assert_eq!((found, ended.unwrap().finish), expected, "{grammar:?}, {slots} slots");
        }
        let statistics = scheduler.statistics();
        assert_eq!((statistics.finished, statistics.failed), (20, 0));
    }
}

/// Allows one token after the other, then nothing. It waits for a word before each.
struct Waits {
    tokens: Vec<u32>,
    word: Receiver<Result<(), GuideError>>,
}

impl Guide for Waits {
    fn allowed(&mut self) -> Result<TokenSet, GuideError> {
        self.word.recv().unwrap_or(Ok(()))?;
        Ok(self.tokens.first().copied().into_iter().collect())
    }

    fn accept(&mut self, id: u32) -> Result<(), GuideError> {
        assert_eq!(self.tokens.remove(0), id);
        Ok(())
    }
}

#[test]
fn a_guide_that_takes_long_holds_up_its_own_answer_alone() {
    let scheduler = scheduler(4);
    let greedy = SamplerOptions::default();
    let (say, word) = channel();
    let slow = Waits { tokens: vec![300, 301], word };
    let slow = submit(&scheduler, request(&[4093, 5, 6], greedy, Some(Box::new(slow))));
    for round in 0..3 {
        // Others come and go meanwhile.
        let ids = [4093, 7 + round];
        let (found, ended) = submit(&scheduler, request(&ids, greedy, None)).answer();
        assert_eq!((found, ended.unwrap().finish), alone(&ids, greedy, None));
        say.send(Ok(())).unwrap();
    }
    let (found, ended) = slow.answer();
    assert_eq!((found, ended.unwrap().finish), (vec![300, 301], Finish::Stop));
    // One that waits can be cancelled, and its slot is free.
    let (silent, word) = channel();
    let stuck = Waits { tokens: vec![300], word };
    let stuck = submit(&scheduler, request(&[4093, 5], greedy, Some(Box::new(stuck))));
    let Pending(events, ticket) = stuck;
    assert!(matches!(events.recv(), Ok(Event::Began { .. })));
    drop(ticket);
    let ended = events.into_iter().last();
    assert!(matches!(ended, Some(Event::Ended(Ok(Ended { finish: Finish::Interrupted, .. })))), "{ended:?}");
    drop(silent);
}

#[test]
fn a_guide_that_fails_ends_its_own_answer_alone() {
    let scheduler = scheduler(4);
    let greedy = SamplerOptions::default();
    let (say, word) = channel();
    let fails = Waits { tokens: vec![300, 301], word };
    let fails = submit(&scheduler, request(&[4093, 5, 6], greedy, Some(Box::new(fails))));
    let other = submit(&scheduler, request(&[4093, 9], greedy, None));
    say.send(Ok(())).unwrap();
    say.send(Err(GuideError("the grammar has no end".into()))).unwrap();
    let (found, ended) = fails.answer();
    assert_eq!(found, [300]);
    let error = ended.unwrap_err();
    assert!(matches!(&error, RequestError::Guide(_)) && error.to_string().contains("no end"), "{error}");
    assert_eq!(other.answer().0, alone(&[4093, 9], greedy, None).0);
    assert_eq!(scheduler.statistics().failed, 1);
}
