//! Texts that a scheduler kept, over a restart: requests that begin alike find them, and get the tokens that they would get
//! without.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};
use trit_runtime::scheduler::{Event, Request, Scheduler, SchedulerOptions};
use trit_runtime::text::output::Unfinished;
use trit_runtime::{KernelChoice, KvType, Model, RuntimeError, SavedSequences, SequenceOptions};
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{compile, compile_with, fixture, repository};

fn fables() -> Arc<Model> {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "scheduler-saved-fables"));
    load(&BUNDLE, KernelChoice::Auto)
}

fn hybrid() -> Arc<Model> {
    static BUNDLE: LazyLock<PathBuf> = LazyLock::new(|| {
        compile_with(&fixture("qwen35-g128/model.safetensors"), "scheduler-saved-hybrid", &[])
    });
    load(&BUNDLE, KernelChoice::Auto)
}

fn start(model: &Arc<Model>, options: SchedulerOptions) -> Scheduler {
    Scheduler::new(engine(model, 2, 96), options).unwrap()
}

/// The tokens of an answer, and how many tokens of its prompt need not run.
fn answer(scheduler: &Scheduler, ids: &[u32]) -> (Vec<u32>, usize) {
    let (sender, events) = channel();
    let request =
        Request { max_new: 12, ignore_eos: true, ..Request::new(scheduler.engine().model(), ids.to_vec()) };
    let ticket = scheduler.submit(request, move |event| match sender.send(event) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => ControlFlow::Break(()),
    });
    let ticket = ticket.unwrap();
    let (mut tokens, mut known) = (Vec::new(), 0);
    for event in events {
        match event {
            Event::Began { cached } => known = cached,
            Event::Token(chosen) => tokens.push(chosen.id),
            Event::Ended(how) => assert_eq!(how.unwrap().generated, 12),
        }
    }
    drop(ticket);
    (tokens, known)
}

fn save(scheduler: &Scheduler, path: &Path) -> usize {
    scheduler.save(path, &Unfinished::default()).unwrap()
}

#[test]
fn requests_find_what_ran_before_a_restart() {
    for (model, vocab) in [(fables(), 4096), (hybrid(), 80)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts");
        let system = Random(1).ids(120, vocab);
        let ask = |i: u64| [&system[..], &Random(i).ids(40, vocab)].concat();
        let before = start(&model, SchedulerOptions::default());
        assert_eq!(save(&before, &path), 0);
        assert!(!path.exists(), "nothing has run");
        let expected: Vec<Vec<u32>> = (0..4).map(|i| answer(&before, &ask(i)).0).collect();
        let kept = save(&before, &path);
        assert_eq!(kept, 4);
        drop(before);

        let saved = SavedSequences::open(&path, &model).unwrap();
        let after = start(&model, SchedulerOptions::default());
        assert_eq!((after.restore(&saved).unwrap(), after.statistics().kept_texts), (4, 4));
        assert!(after.statistics().kv_bytes > 0, "their memory counts");
        for (i, expected) in expected.iter().enumerate() {
            let (tokens, known) = answer(&after, &ask(i as u64));
            assert!(tokens == *expected && known >= 140, "{i}: {known} of 160 were known");
        }
        // A new text with the same system prompt.
        let cold = answer(&start(&model, SchedulerOptions::default()), &ask(9)).0;
        let (tokens, known) = answer(&after, &ask(9));
        assert!(tokens == cold && known <= 120);
        assert!(model.state_bytes() > 0 || known == 120, "{known} of the system prompt were known");
        // What was used last stands last.
        answer(&after, &ask(0));
        save(&after, &path);
        let saved = SavedSequences::open(&path, &model).unwrap();
        assert_eq!(saved.tokens(saved.len() - 1)[..160], ask(0));
    }
}

#[test]
fn memory_and_the_file_stay_within_the_limit() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let path = folder.path().join("texts");
    let ids = |i: u64| Random(i).ids(300, 4096);
    let all = start(&model, SchedulerOptions::default());
    (0..6).for_each(|i| drop(answer(&all, &ids(i))));
    assert_eq!(save(&all, &path), 6);
    let each = all.statistics().kv_bytes / 6;
    let saved = SavedSequences::open(&path, &model).unwrap();
    // Room for two and a half of them.
    let few = SchedulerOptions { kv_memory: Some(each * 5 / 2), slots: 1, ..SchedulerOptions::default() };
    let small = start(&model, few);
    assert_eq!(small.restore(&saved).unwrap(), 2);
    assert!(small.statistics().kv_bytes <= each * 5 / 2);
    let known = |i: u64| answer(&small, &ids(i)).1;
    assert_eq!((known(5), known(0)), (299, 0), "the last ones were restored");
    // Restored texts go like any others, where memory is short.
    (10..14).for_each(|i| drop(answer(&small, &ids(i))));
    assert!(small.statistics().kv_bytes <= each * 5 / 2);
    let kept = save(&small, &path);
    assert!((1..=2).contains(&kept), "{kept} texts in a file");
    assert!(std::fs::metadata(&path).unwrap().len() <= each as u64 * 5 / 2);

    // A shorter context takes the beginnings of longer texts.
    let sequence = SequenceOptions { context: Some(100), ..SchedulerOptions::default().sequence };
    let short = start(&model, SchedulerOptions { sequence, ..SchedulerOptions::default() });
    assert_eq!(short.restore(&saved).unwrap(), 6);
    assert_eq!(answer(&short, &ids(3)[..80]).1, 79);
    // Another type of cache is refused, and nothing is kept.
    let sequence = SequenceOptions { kv: KvType::Int8, ..SchedulerOptions::default().sequence };
    let other = start(&model, SchedulerOptions { sequence, ..SchedulerOptions::default() });
    assert!(matches!(other.restore(&saved), Err(RuntimeError::Saved { .. })));
    assert_eq!((other.statistics().kept_texts, other.statistics().kv_bytes), (0, 0));
}
