//! A session is stopped by another thread, and goes on afterwards as if nothing had happened.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use trit_runtime::generate::{Finish, generate};
use trit_runtime::sample::{Sampler, SamplerOptions};
use trit_runtime::{LoadOptions, Model, RuntimeError, Session, SessionOptions, TrustPolicy};
use trit_tests::ways::endless;
use trit_tests::workbench::{compile, repository};

fn model() -> Arc<Model> {
    static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
        let bundle = compile(&repository().join("examples/models/fables-12m"), "interrupt-fables");
        Model::load(&bundle, &LoadOptions { trust: TrustPolicy::everything(), ..LoadOptions::default() })
            .unwrap()
    });
    MODEL.clone()
}

/// A session whose prompts take several passes, and the flag that stops it.
fn session(threads: usize) -> (Session, Arc<AtomicBool>) {
    let options =
        SessionOptions { threads: Some(threads), oversubscribe: true, chunk: 8, ..SessionOptions::default() };
    let mut session = Session::new(model(), options).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    session.interrupt_by(stop.clone());
    (session, stop)
}

fn ids(n: u32) -> Vec<u32> {
    (0..n).map(|i| 40 + i * 7 % 900).collect()
}

#[test]
fn a_stopped_prompt_leaves_the_sequence_as_it_was() {
    for threads in [1, 2, 3] {
        let (mut session, stop) = session(threads);
        session.prefill(&ids(5)).unwrap();
        let expected = session.prefill(&ids(40)).unwrap().to_vec();
        session.truncate(5);
        stop.store(true, Relaxed);
        assert!(matches!(session.prefill(&ids(40)), Err(RuntimeError::Interrupted)));
        assert_eq!((session.position(), session.tokens()), (5, &ids(5)[..]));
        stop.store(false, Relaxed);
        // Between two passes: the first eight tokens were run already.
        let mut seen = 0;
        let stopped = session.forward_all(&ids(40), &mut |_, _| {
            seen += 1;
            stop.store(true, Relaxed);
        });
        assert!(matches!(stopped, Err(RuntimeError::Interrupted)) && seen == 8, "{stopped:?} after {seen}");
        assert_eq!(session.position(), 5);
        stop.store(false, Relaxed);
        assert!(session.prefill(&ids(40)).unwrap() == expected, "{threads} threads");
    }
}

/// At any moment: the flag is set by a thread that knows nothing of what the session does.
#[test]
fn whenever_it_is_stopped_nothing_is_left_behind() {
    let (mut session, stop) = session(2);
    let expected = session.prefill(&ids(300)).unwrap().to_vec();
    for round in 0..40 {
        session.truncate(0);
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_micros(50 * round * round));
                stop.store(true, Relaxed);
            });
            session.prefill(&ids(300)).map(<[f32]>::to_vec)
        });
        stop.store(false, Relaxed);
        match done {
            Ok(logits) => assert!(logits == expected),
            Err(RuntimeError::Interrupted) => assert_eq!(session.position(), 0),
            Err(other) => panic!("{other}"),
        }
    }
    session.truncate(0);
    assert!(session.prefill(&ids(300)).unwrap() == expected);
}

#[test]
fn a_generation_is_stopped_in_its_prompt_or_after_some_tokens() {
    let (mut session, stop) = session(2);
    let mut sampler = Sampler::new(SamplerOptions::default());
    let options = endless(20, true);
    stop.store(true, Relaxed);
    let none = generate(&mut session, &ids(30), &mut sampler, &options, &mut |_| ControlFlow::Continue(()));
    let none = none.unwrap();
    assert_eq!((none.finish, none.ids.len(), session.position()), (Finish::Interrupted, 0, 0));
    stop.store(false, Relaxed);
    let mut more = |id: u32| {
        stop.store(id != u32::MAX, Relaxed);
        ControlFlow::Continue(())
    };
    let some = generate(&mut session, &ids(30), &mut sampler, &options, &mut more).unwrap();
    assert_eq!((some.finish, some.ids.len(), session.position()), (Finish::Interrupted, 1, 30));
}
