//! Many sequences in one engine: each gives exactly the tokens and logits that it gives alone, whatever runs beside it.

use std::sync::Arc;
use trit_runtime::sample::argmax;
use trit_runtime::{
    Batch, Engine, KernelChoice, KvType, Logits, LogitsRequest, Model, RuntimeError, Sequence,
    SequenceOptions, Session, SessionOptions,
};
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{compile, repository};

fn bundle(name: &str) -> std::path::PathBuf {
    compile(&repository().join("examples/models/fables-12m"), name)
}

/// What one user wants: a prompt, and some tokens after it.
#[derive(Clone)]
struct User {
    prompt: Vec<u32>,
    tokens: usize,
    kv: KvType,
    request: LogitsRequest,
    /// The step before which it comes.
    joins: usize,
    /// Tokens of its prompt a step.
    chunk: usize,
    /// Whether it drafts a token a step, right ones and wrong ones.
    drafts: bool,
}

/// Some with short prompts, some with prompts of more than a page of the KV cache.
fn users(count: usize) -> Vec<User> {
    let mut random = Random(count as u64);
    let user = |i: usize| {
        let len = [1, 40, 300, 7, 17, 255, 3][i % 7] + random.below(20);
        User {
            prompt: (0..len).map(|_| random.below(4096) as u32).collect(),
            tokens: 3 + random.below(15),
            kv: [KvType::F16, KvType::F32, KvType::Int8][i % 3],
            request: match i % 4 {
                0 => LogitsRequest::All,
                1 => {
                    LogitsRequest::Largest { count: 40, within: 1.5, allowed: None, forced: vec![7, 4000, 3] }
                }
                _ => LogitsRequest::largest(),
            },
            joins: random.below(12),
            chunk: 1 + random.below(70),
            drafts: i % 5 == 2,
        }
    };
    (0..count).map(user).collect()
}

/// The greedy tokens of a user who is alone, and all logits that each was chosen from.
fn alone(model: &Arc<Model>, user: &User) -> (Vec<u32>, Vec<Vec<f32>>) {
    let options = SessionOptions { threads: Some(1), kv: user.kv, ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options).unwrap();
    let (mut tokens, mut all) = (Vec::new(), Vec::new());
    let mut logits = session.prefill(&user.prompt).unwrap().to_vec();
    for _ in 0..user.tokens {
        tokens.push(argmax(&logits));
        all.push(std::mem::take(&mut logits));
        logits = session.decode(tokens[tokens.len() - 1]).unwrap().to_vec();
    }
    (tokens, all)
}

/// Checks what was found against all logits, bit for bit, and gives the greedy token.
fn check(found: Logits, request: &LogitsRequest, expected: &[f32], what: &str) -> u32 {
    match (found, request) {
        (Logits::All(all), _) => {
            let same = all.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(all.len() == expected.len() && same, "{what}: other logits");
            argmax(all)
        }
        (Logits::Candidates(some), LogitsRequest::Largest { count, within, forced, .. }) => {
            for candidate in some {
                assert_eq!(candidate.logit.to_bits(), expected[candidate.id as usize].to_bits(), "{what}");
            }
            let mut order = expected.to_vec();
            order.sort_by(|a, b| b.total_cmp(a));
            let least = order[count - 1].min(order[0] - within);
            let has = |id: u32| some.iter().any(|candidate| candidate.id == id);
            let largest = (0..expected.len() as u32).filter(|&id| expected[id as usize] >= least);
            assert!(largest.chain(forced.iter().copied()).all(has), "{what}: candidates are missing");
            let best = some.iter().max_by(|a, b| a.logit.total_cmp(&b.logit).then(b.id.cmp(&a.id)));
            best.unwrap().id
        }
        (found, request) => panic!("{what}: {found:?} in place of {request:?}"),
    }
}

/// Steps with rows of as many users as there is room for, in another order each time.
fn together(engine: &Engine, users: &[User], alone: &[(Vec<u32>, Vec<Vec<f32>>)], what: &str) {
    struct Guest<'a> {
        user: &'a User,
        sequence: Sequence,
        made: Vec<u32>,
        ids: Vec<u32>,
        drafted: usize,
        requests: Vec<LogitsRequest>,
    }
    let mut random = Random(users.len() as u64 + 7);
    let mut guests: Vec<Option<Guest>> = users
        .iter()
        .map(|user| {
            let options = SequenceOptions { kv: user.kv, ..SequenceOptions::default() };
            let sequence = engine.sequence(options).unwrap();
            Some(Guest { user, sequence, made: vec![], ids: vec![], drafted: 0, requests: vec![] })
        })
        .collect();
    let (mut most, mut mixed) = (0, 0);
    for step in 0.. {
        if guests.iter().all(Option::is_none) {
            break;
        }
        let mut room = engine.rows();
        let from = random.below(guests.len());
        let (mut batch, mut order) = (Batch::new(), Vec::new());
        let mut open: Vec<(usize, &mut Guest)> =
            guests.iter_mut().enumerate().filter_map(|(i, guest)| Some((i, guest.as_mut()?))).collect();
        let turn = from % open.len();
        open.rotate_left(turn);
        for (i, guest) in open.into_iter().filter(|(_, guest)| guest.user.joins <= step) {
            let (user, done) = (guest.user, guest.sequence.position());
            guest.drafted = 0;
            if done < user.prompt.len() {
                let end = (done + user.chunk.min(room)).min(user.prompt.len());
                guest.ids = user.prompt[done..end].to_vec();
                let last = usize::from(end == user.prompt.len());
                guest.requests = vec![user.request.clone(); last];
            } else {
                let at = guest.made.len();
                guest.ids = vec![guest.made[at - 1]];
                if user.drafts && at < user.tokens {
                    guest.ids.push(if at.is_multiple_of(2) { alone[i].0[at] } else { 9 });
                    guest.drafted = 1;
                }
                guest.requests = vec![user.request.clone(); guest.ids.len()];
            }
            if guest.ids.is_empty() || guest.ids.len() > room {
                continue;
            }
            room -= guest.ids.len();
            order.push(i);
            batch.push_drafted(&mut guest.sequence, &guest.ids, guest.drafted, &guest.requests);
        }
        if order.is_empty() {
            continue;
        }
        most = most.max(batch.len());
        mixed += usize::from(batch.rows() > batch.len());
        let ran = engine.step(&mut batch).unwrap();
        drop(batch);
        assert_eq!(ran.len(), order.len());
        for (i, ran) in order.into_iter().zip(ran) {
            let slot = &mut guests[i];
            let Some(guest) = slot else { unreachable!("it ran") };
            assert_eq!(ran.unwrap(), guest.ids.len());
            let mut row = 0;
            while let Some(logits) = guest.sequence.logits(row) {
                let at = guest.made.len();
                let id =
                    check(logits, &guest.user.request, &alone[i].1[at], &format!("{what}: {i}, token {at}"));
                assert_eq!(id, alone[i].0[at], "{what}: sequence {i}, token {at}");
                guest.made.push(id);
                row += 1;
                // What follows a wrong draft never happened.
                if at + 1 == guest.user.tokens || guest.ids.get(row).is_some_and(|&drafted| drafted != id) {
                    break;
                }
            }
            if row > 0 {
                guest.sequence.truncate(guest.user.prompt.len() + guest.made.len() - 1);
            }
            if guest.made.len() == guest.user.tokens {
                *slot = None;
            }
        }
    }
    assert!(most > users.len() / 3 && mixed > 3, "{what}: {most} sequences in a step, {mixed} mixed steps");
}

#[test]
fn sequences_in_one_batch_are_what_they_are_alone() {
    let bundle = bundle("engine");
    for count in [3, 17] {
        let users = users(count);
        let portable = load(&bundle, KernelChoice::Portable);
        let alone: Vec<_> = users.iter().map(|user| alone(&portable, user)).collect();
        for kernels in [KernelChoice::Embedded, KernelChoice::Jit, KernelChoice::Portable] {
            let model = load(&bundle, kernels);
            for threads in 1..=4 {
                for rows in [33, 128] {
                    let what = format!("{count} sequences, {kernels:?}, {threads} threads, {rows} rows");
                    together(&engine(&model, threads, rows), &users, &alone, &what);
                }
            }
        }
    }
}

/// However a sequence was reached, by forks of forks, truncated and continued, it goes on as from scratch.
#[test]
fn forks_go_on_as_from_scratch() {
    let model = load(&bundle("engine-forks"), KernelChoice::Jit);
    let engine = engine(&model, 2, 64);
    let mut random = Random(3);
    for kv in [KvType::F16, KvType::F32, KvType::Int8] {
        let options = SequenceOptions { kv, ..SequenceOptions::default() };
        let mut family = vec![engine.sequence(options).unwrap()];
        for _ in 0..40 {
            let index = random.below(family.len());
            match random.below(4) {
                0 if family.len() < 6 => {
                    let position = random.below(family[index].position() + 1);
                    family.push(family[index].fork(position));
                }
                1 => {
                    let position = random.below(family[index].position() + 1);
                    family[index].truncate(position);
                }
                _ => {
                    let ids: Vec<u32> =
                        (0..1 + random.below(130)).map(|_| random.below(4096) as u32).collect();
                    if family[index].position() + ids.len() > family[index].context_length() {
                        continue;
                    }
                    engine.advance(&mut family[index], &ids, &[LogitsRequest::All], None).unwrap();
                    let mut scratch = engine.sequence(options).unwrap();
                    engine
                        .advance(&mut scratch, family[index].tokens(), &[LogitsRequest::All], None)
                        .unwrap();
                    let (Some(Logits::All(a)), Some(Logits::All(b))) =
                        (family[index].logits(0), scratch.logits(0))
                    else {
                        panic!("all were asked for")
                    };
                    assert!(a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits()), "{kv}");
                }
            }
        }
    }
}

/// What is wrong with one sequence is no matter to the others, and leaves it as it was.
#[test]
fn errors_of_one_sequence_stay_with_it() {
    let path = bundle("engine-errors");
    let model = load(&path, KernelChoice::Jit);
    let engine = engine(&model, 2, 64);
    let sequence = || engine.sequence(SequenceOptions { context: Some(20), ..SequenceOptions::default() });
    let largest = [LogitsRequest::largest()];
    let many = vec![LogitsRequest::All; 3];
    let mut alone = sequence().unwrap();
    engine.advance(&mut alone, &[1, 2, 3], &largest, None).unwrap();

    let (mut good, mut empty, mut outside, mut long, mut asks) = (
        sequence().unwrap(),
        sequence().unwrap(),
        sequence().unwrap(),
        sequence().unwrap(),
        sequence().unwrap(),
    );
    let other = load(&path, KernelChoice::Portable);
    let mut stranger = Sequence::new(other, SequenceOptions::default()).unwrap();
    engine.advance(&mut long, &[5; 18], &[], None).unwrap();
    let mut batch = Batch::new();
    batch.push(&mut empty, &[], &[]);
    batch.push(&mut outside, &[1, 4096], &largest);
    batch.push(&mut good, &[1, 2, 3], &largest);
    batch.push(&mut long, &[1, 2, 3], &largest);
    batch.push(&mut asks, &[1, 2], &many);
    batch.push(&mut stranger, &[1], &largest);
    let ran = engine.step(&mut batch).unwrap();
    let words = [
        Some("no tokens"),
        Some("token id 4096"),
        None,
        Some("do not fit"),
        Some("3 rows"),
        Some("another model"),
    ];
    for (ran, words) in ran.iter().zip(words) {
        match (ran, words) {
            (Ok(ran), None) => assert_eq!(*ran, 3),
            (Err(error), Some(words)) => assert!(error.to_string().contains(words), "{error}"),
            _ => panic!("{ran:?}, expected {words:?}"),
        }
    }
    let positions = [&empty, &outside, &good, &long, &asks, &stranger].map(Sequence::position);
    assert_eq!(positions, [0, 0, 3, 18, 0, 0]);
    assert!(matches!((good.logits(0), alone.logits(0)),
        (Some(Logits::Candidates(a)), Some(Logits::Candidates(b))) if a.iter().all(|c| b.contains(c)) || b.iter().all(|c| a.contains(c))));
    assert!(long.logits(0).is_none() && good.logits(1).is_none());

    // More than a step takes: nothing runs.
    let ids = [1; 40];
    let mut batch = Batch::new();
    batch.push(&mut good, &ids, &[]);
    batch.push(&mut empty, &ids, &[]);
    assert!(matches!(engine.step(&mut batch), Err(RuntimeError::Input(_))));
    drop(batch);
    assert_eq!((good.position(), empty.position()), (3, 0));

    // Interrupted before it begins: nothing changes, and it goes on afterwards.
    let stop = std::sync::atomic::AtomicBool::new(true);
    let mut batch = Batch::new();
    batch.interrupt_by(&stop);
    batch.push(&mut good, &[4], &largest);
    batch.push(&mut empty, &[4], &largest);
    assert!(matches!(engine.step(&mut batch), Err(RuntimeError::Interrupted)));
    drop(batch);
    assert_eq!((good.tokens(), empty.position()), (&[1, 2, 3][..], 0));
    engine.advance(&mut good, &[4], &largest, None).unwrap();
    engine.advance(&mut alone, &[4], &largest, None).unwrap();
    assert_eq!(good.tokens(), alone.tokens());
    assert!(matches!(
        engine.sequence(SequenceOptions { context: Some(0), ..SequenceOptions::default() }),
        Err(RuntimeError::Context { asked: 0, .. })
    ));
}

/// Sessions that share an engine share its threads, and nothing else.
#[test]
fn sessions_share_an_engine() {
    let model = load(&bundle("engine-sessions"), KernelChoice::Jit);
    let engine = Arc::new(engine(&model, 2, 64));
    let mut alone = Session::new(model.clone(), SessionOptions::default()).unwrap();
    let texts: Vec<Vec<u32>> = (0..4).map(|i| (0..30 + i * 10).map(|t| t * 37 % 4096).collect()).collect();
    let expected: Vec<Vec<f32>> = texts
        .iter()
        .map(|text| {
            alone.truncate(0);
            alone.prefill(text).unwrap().to_vec()
        })
        .collect();
    std::thread::scope(|scope| {
        for (text, expected) in texts.iter().zip(&expected) {
            let mut session = Session::on(engine.clone(), SequenceOptions::default()).unwrap();
            scope.spawn(move || {
                for _ in 0..5 {
                    session.truncate(0);
                    session.advance(&text[..7], &[]).unwrap();
                    let logits = session.prefill(&text[7..]).unwrap();
                    assert!(logits.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()));
                }
            });
        }
    });
}
