//! Many requests in one scheduler: each gets exactly the tokens that it gets alone, however they share steps, pages and
//! memory; none is lost.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use trit_runtime::generate::{Finish, GenerateOptions, generate};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::scheduler::{
    Ended, Event, Refused, Request, RequestError, Scheduler, SchedulerOptions, Statistics, Ticket,
};
use trit_runtime::{KernelChoice, Model, RuntimeError, SequenceOptions, Session, SessionOptions};
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{self, compile, fixture, repository};

static FABLES: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let bundle = compile(&repository().join("examples/models/fables-12m"), "scheduler-fables");
    load(&bundle, KernelChoice::Auto)
});

fn hybrid() -> PathBuf {
    compile(&fixture("qwen35-g128"), "scheduler-hybrid")
}

/// A request of a test: its text, how it is continued, and who asks.
#[derive(Clone)]
struct Ask {
    ids: Vec<u32>,
    options: SamplerOptions,
    max_new: usize,
    logprobs: Option<usize>,
    user: u64,
}

impl Ask {
    fn greedy(ids: Vec<u32>, max_new: usize) -> Ask {
        Ask { ids, options: SamplerOptions::default(), max_new, logprobs: None, user: 0 }
    }

    fn request(&self, model: &Model) -> Request {
        Request {
            sampler: Sampler::new(self.options),
            max_new: self.max_new,
            logprobs: self.logprobs,
            user: self.user,
            ..Request::new(model, self.ids.clone())
        }
    }

    /// The tokens that it gets alone, and why they end.
    fn alone(&self, model: &Arc<Model>) -> (Vec<u32>, Finish) {
        let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
        let mut session = Session::new(model.clone(), options).unwrap();
        let how = GenerateOptions { max_new: self.max_new, draft: false, ..GenerateOptions::of(model) };
        let mut sampler = Sampler::new(self.options);
        let each = &mut |_| ControlFlow::Continue(());
        let result = generate(&mut session, &self.ids, &mut sampler, &how, each).unwrap();
        (result.ids, result.finish)
    }
}

/// What became of a request.
struct Answer {
    ids: Vec<u32>,
    began: bool,
    ended: Result<Ended, RequestError>,
}

struct Pending {
    events: Receiver<Event>,
    ticket: Ticket,
}

fn submit(scheduler: &Scheduler, request: Request) -> Result<Pending, Refused> {
    let (sender, events) = channel();
    let ticket = scheduler.submit(request, move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    })?;
    Ok(Pending { events, ticket })
}

impl Pending {
    /// Waits for the end.
    fn answer(self) -> Answer {
        let mut answer = Answer { ids: Vec::new(), began: false, ended: Err(RequestError::Stopped) };
        let mut ends = 0;
        for event in &self.events {
            assert_eq!(ends, 0, "nothing comes after the end");
            match event {
                Event::Began { .. } => {
                    assert!(!std::mem::replace(&mut answer.began, true), "it begins once");
                }
                Event::Token(chosen) => answer.ids.push(chosen.id),
                Event::Ended(how) => (answer.ended, ends) = (how, ends + 1),
            }
        }
        assert_eq!(ends, 1, "it ends once");
        drop(self.ticket);
        answer
    }
}

fn scheduler(model: &Arc<Model>, options: SchedulerOptions) -> Scheduler {
    Scheduler::new(engine(model, 2, 96), options).unwrap()
}

/// Bytes of a page of a model's KV cache.
fn page(model: &Arc<Model>) -> usize {
    let engine = Arc::new(engine(model, 1, 8));
    let mut session = Session::on(engine.clone(), SequenceOptions::default()).unwrap();
    session.prefill(&[1]).unwrap();
    engine.sequence_bytes()
}

/// Waits until the scheduler's statistics are so, which are published after each step.
fn wait_for(scheduler: &Scheduler, so: impl Fn(&Statistics) -> bool) -> Statistics {
    let mut statistics = scheduler.statistics();
    workbench::wait_for("the scheduler gets there", || {
        statistics = scheduler.statistics();
        so(&statistics)
    });
    statistics
}

/// Requests of all kinds: some begin alike, some repeat themselves, so that drafts are made.
fn asks(count: usize, vocab: usize, longest: usize) -> Vec<Ask> {
    let mut random = Random(count as u64);
    let prefixes: Vec<Vec<u32>> = [40, 300, 90].iter().map(|&len| random.ids(len, vocab)).collect();
    let ask = |i: usize| {
        let mut ids = if i.is_multiple_of(2) { prefixes[i / 2 % 3].clone() } else { Vec::new() };
        let own = 1 + random.below(60);
        ids.extend(random.ids(own, vocab));
        if i % 5 == 1 {
            ids.extend_from_within(..);
        }
        ids.truncate(longest);
        let sampling =
            SamplerOptions { temperature: 0.8, top_k: 20, seed: i as u64, ..SamplerOptions::default() };
        Ask {
            ids,
            options: if i % 3 == 2 { sampling } else { SamplerOptions::default() },
            max_new: random.below(40),
            logprobs: (i % 7 == 3).then_some(2),
            user: i as u64 % 4,
        }
    };
    (0..count).map(ask).collect()
}

/// Submits all of them and compares each with the same request alone.
fn same_as_alone(model: &Arc<Model>, scheduler: &Scheduler, asks: &[Ask]) {
    let pending: Vec<Pending> =
        asks.iter().map(|ask| submit(scheduler, ask.request(model)).unwrap()).collect();
    for (index, (ask, pending)) in asks.iter().zip(pending).enumerate() {
        let (ids, finish) = ask.alone(model);
        let answer = pending.answer();
        let ended = answer.ended.unwrap_or_else(|e| panic!("{index}: {e}"));
        assert_eq!((answer.ids, ended.finish), (ids.clone(), finish), "{index}");
        assert_eq!((ended.prompt, ended.generated), (ask.ids.len(), ids.len()), "{index}");
        assert!(answer.began && ended.cached < ask.ids.len(), "{index}");
    }
}

#[test]
fn each_request_gets_what_it_gets_alone() {
    let model = &*FABLES;
    let scheduler = scheduler(model, SchedulerOptions { slots: 6, ..SchedulerOptions::default() });
    let asks = asks(40, 4096, 400);
    same_as_alone(model, &scheduler, &asks);
    let statistics = wait_for(&scheduler, |s| s.finished == 40);
    assert_eq!((statistics.running, statistics.waiting), (0, 0));
    assert!(statistics.cached_tokens > 1000, "prompts that begin alike share: {statistics:?}");
    assert!(statistics.drafted_tokens > 0, "{statistics:?}");
    assert_eq!(statistics.preempted, 0);
    assert!(statistics.kv_bytes <= statistics.kv_memory);
}

/// Requests that begin alike and come together run that beginning once.
#[test]
fn what_comes_together_is_run_once() {
    for model in [&*FABLES, &load(&hybrid(), KernelChoice::Auto)] {
        let vocab = model.manifest().hyperparameters.vocab_size as usize;
        let scheduler = scheduler(model, SchedulerOptions { slots: 4, ..SchedulerOptions::default() });
        let beginning = Random(5).ids(80, vocab);
        let ask = |own: u64| {
            let ids = [&beginning[..], &Random(own).ids(15, vocab)].concat();
            Ask { user: own, ..Ask::greedy(ids, 6) }
        };
        let asks: Vec<Ask> = (0..4).map(ask).collect();
        same_as_alone(model, &scheduler, &asks);
        let statistics = wait_for(&scheduler, |s| s.finished == 4);
        assert_eq!(statistics.prompt_tokens, 80 + 4 * 15, "{statistics:?}");
    }
}

/// Where the memory holds few pages, texts go and requests wait for each other, and the tokens are the same.
#[test]
fn memory_is_bounded_and_nobody_is_lost() {
    let model = &*FABLES;
    let kv_memory = 5 * page(model);
    let options = SchedulerOptions { slots: 5, kv_memory: Some(kv_memory), ..SchedulerOptions::default() };
    let scheduler = scheduler(model, options);
    let mut asks = asks(24, 4096, 250);
    // Answers that grow over the end of a page while there is no other page.
    for ask in asks.iter_mut().take(5) {
        ask.ids = Random(ask.ids.len() as u64).ids(230, 4096);
        ask.max_new = 60;
        ask.options = SamplerOptions { temperature: 1.0, seed: 3, ..SamplerOptions::default() };
    }
    same_as_alone(model, &scheduler, &asks);
    let statistics = scheduler.statistics();
    assert!(statistics.preempted > 0 && statistics.evicted_texts > 0, "{statistics:?}");
    assert!(statistics.kv_bytes <= kv_memory, "{statistics:?}");
    let too_small = SchedulerOptions { kv_memory: Some(1000), ..options };
    let error = Scheduler::new(engine(model, 1, 8), too_small).err().expect("there is no room");
    assert!(matches!(error, RuntimeError::Context { .. } | RuntimeError::Input(_)), "{error}");
}

/// A context that the memory cannot hold is shortened, and an answer that fills it ends.
#[test]
fn the_context_is_what_memory_holds() {
    let model = &*FABLES;
    let options = SchedulerOptions { kv_memory: Some(page(model)), slots: 1, ..SchedulerOptions::default() };
    let scheduler = scheduler(model, options);
    assert_eq!(scheduler.context_length(), 256);
    let mut ask = Ask::greedy(Random(1).ids(250, 4096), 1000);
    let answer = submit(&scheduler, Request { stop_ids: Vec::new(), ..ask.request(model) }).unwrap().answer();
    assert_eq!((answer.ids.len(), answer.ended.unwrap().finish), (7, Finish::Context));
    ask.ids = Random(1).ids(257, 4096);
    match submit(&scheduler, ask.request(model)) {
        Err(Refused::Impossible(RuntimeError::ContextFull { tokens: 257, context: 256, .. })) => {}
        other => panic!("{:?}", other.err()),
    }
    for bad in [vec![], vec![4096]] {
        let refused = submit(&scheduler, Request::new(model, bad)).err();
        assert!(matches!(refused, Some(Refused::Impossible(RuntimeError::Input(_)))), "{refused:?}");
    }
}

/// Hybrids share prefixes by snapshots of their state.
#[test]
fn recurrent_states_are_shared_and_give_the_same_tokens() {
    let model = &load(&hybrid(), KernelChoice::Auto);
    let vocab = model.manifest().hyperparameters.vocab_size as usize;
    let scheduler = scheduler(model, SchedulerOptions { slots: 4, ..SchedulerOptions::default() });
    let asks = asks(24, vocab, 90);
    same_as_alone(model, &scheduler, &asks);
    let statistics = scheduler.statistics();
    assert!(statistics.cached_tokens > 100, "{statistics:?}");
    // A conversation that goes on repeats its text.
    let first = Ask::greedy(Random(9).ids(60, vocab), 8);
    let answer = submit(&scheduler, first.request(model)).unwrap().answer();
    let ids = [&first.ids[..], &answer.ids, &[5, 6, 7]].concat();
    let second = Ask::greedy(ids, 8);
    let alone = second.alone(model);
    let answer = submit(&scheduler, second.request(model)).unwrap().answer();
    assert_eq!(answer.ids, alone.0);
    assert!(answer.ended.unwrap().cached >= 60);
}

#[test]
fn who_cancels_frees_the_slot() {
    let model = &*FABLES;
    let scheduler = scheduler(model, SchedulerOptions { slots: 1, ..SchedulerOptions::default() });
    let endless = || Request { ignore_eos: true, ..Ask::greedy(vec![1, 2, 3], usize::MAX).request(model) };
    let first = submit(&scheduler, endless()).unwrap();
    let waits = submit(&scheduler, endless()).unwrap();
    let last = submit(&scheduler, Ask::greedy(vec![1, 2, 3], 5).request(model)).unwrap();
    // One goes while it waits, one while it runs, and one by its receiver's answer.
    drop(waits.ticket);
    assert!(matches!(
        waits.events.iter().last(),
        Some(Event::Ended(Ok(Ended { finish: Finish::Interrupted, .. })))
    ));
    assert!(matches!(first.events.recv(), Ok(Event::Began { cached: 0 })));
    drop(first.ticket);
    assert_eq!(last.answer().ids.len(), 5);
    let third = submit(&scheduler, endless()).unwrap();
    drop(third.events);
    let statistics = wait_for(&scheduler, |s| s.cancelled == 3);
    drop(third.ticket);
    assert_eq!((statistics.finished, statistics.cancelled, statistics.failed), (1, 3, 0));
}

#[test]
fn a_full_queue_and_an_end_are_told() {
    let model = &*FABLES;
    let options = SchedulerOptions { slots: 1, queue: 2, ..SchedulerOptions::default() };
    let scheduler = scheduler(model, options);
    let endless = || Request { ignore_eos: true, ..Ask::greedy(vec![1, 2, 3], usize::MAX).request(model) };
    // The first stops after some tokens until its events are read, so that it cannot end before the rest is tried.
    let (sender, events) = sync_channel(8);
    let receive = move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    };
    let _ticket = scheduler.submit(endless(), receive).unwrap();
    assert!(matches!(events.recv(), Ok(Event::Began { .. })));
    let waiting: Vec<Pending> = (0..2).map(|_| submit(&scheduler, endless()).unwrap()).collect();
    match submit(&scheduler, endless()) {
        Err(Refused::Full { waiting: 2, retry_after }) => assert!(retry_after >= Duration::from_secs(1)),
        other => panic!("{:?}", other.err()),
    }
    wait_for(&scheduler, |s| s.steps > 1);
    assert_eq!(scheduler.slots().len(), 1);
    scheduler.drain();
    assert!(matches!(submit(&scheduler, endless()), Err(Refused::Draining)));
    let ends = std::thread::spawn(|| drop(scheduler));
    for events in std::iter::once(&events).chain(waiting.iter().map(|pending| &pending.events)) {
        assert!(matches!(events.iter().last(), Some(Event::Ended(Err(RequestError::Stopped)))));
    }
    ends.join().unwrap();
}

/// Who asks for much does not keep others waiting: with one slot, another user's request is next.
#[test]
fn users_take_turns() {
    let model = &*FABLES;
    let scheduler = scheduler(model, SchedulerOptions { slots: 1, ..SchedulerOptions::default() });
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut tickets = Vec::new();
    for (name, user) in [("a1", 1), ("a2", 1), ("a3", 1), ("b1", 2), ("a4", 1), ("c1", 3)] {
        let ask = Ask { user, ..Ask::greedy(Random(user).ids(200, 4096), 20) };
        let order = order.clone();
        let request = Request { ignore_eos: true, ..ask.request(model) };
        let receive = move |event| {
            if let Event::Began { .. } = event {
                order.lock().unwrap().push(name);
            }
            ControlFlow::Continue(())
        };
        tickets.push(scheduler.submit(request, receive).unwrap());
    }
    wait_for(&scheduler, |s| s.finished == 6);
    let order = order.lock().unwrap().clone();
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(at, name)| (*name, at)).collect();
    // The first of a may have begun before the others came.
    assert!(place["b1"] < place["a3"] && place["c1"] < place["a3"] && place["a3"] < place["a4"], "{order:?}");
}

/// Snapshots cost memory, which is counted and given back.
#[test]
fn memory_is_given_back() {
    let model = &load(&hybrid(), KernelChoice::Auto);
    let sequence = SequenceOptions { snapshots: 3, ..SequenceOptions::default() };
    let scheduler = scheduler(model, SchedulerOptions { slots: 2, sequence, ..SchedulerOptions::default() });
    let vocab = model.manifest().hyperparameters.vocab_size as usize;
    let ask = Ask::greedy(Random(3).ids(70, vocab), 10);
    submit(&scheduler, ask.request(model)).unwrap().answer();
    let with_one = wait_for(&scheduler, |s| s.finished == 1).kv_bytes;
    assert!(with_one >= model.state_bytes());
    // The same again takes no more memory.
    submit(&scheduler, ask.request(model)).unwrap().answer();
    assert!(wait_for(&scheduler, |s| s.finished == 2).kv_bytes <= 2 * with_one);
}
