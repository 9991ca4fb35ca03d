//! Sequences in files: a restored one goes on with the same bits, and a file that is damaged, cut off, of another bundle or
//! of another kind is refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use tempfile::TempDir;
use trit_format::saved::{ALIGNMENT, HEADER_BYTES, Head, KvElement, NUMERICS, SavedError, VERSION};
use trit_runtime::saved::save;
use trit_runtime::text::output::Unfinished;
use trit_runtime::{
    Batch, Engine, KernelChoice, KvType, Logits, LogitsRequest, Model, RuntimeError, SavedSequences,
    Sequence, SequenceOptions, Session, SessionOptions, StateType,
};
use trit_tests::engines::{Random, engine, load};
use trit_tests::workbench::{compile, compile_with, fixture, repository};

/// Attention alone; contexts of several pages.
fn fables() -> Arc<Model> {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile(&repository().join("examples/models/fables-12m"), "saved-fables"));
    load(&BUNDLE, KernelChoice::Auto)
}

/// Attention and a recurrent state.
fn hybrid() -> Arc<Model> {
    static BUNDLE: LazyLock<PathBuf> =
        LazyLock::new(|| compile_with(&fixture("qwen35-g128/model.safetensors"), "saved-hybrid", &[]));
    load(&BUNDLE, KernelChoice::Auto)
}

fn vocab(model: &Model) -> usize {
    model.manifest().hyperparameters.vocab_size as usize
}

fn saved_error(error: RuntimeError) -> SavedError {
    match error {
        RuntimeError::Saved { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// Saves sequences to a new file.
fn write(folder: &TempDir, sequences: &[&Sequence]) -> PathBuf {
    let path = folder.path().join("saved");
    save(&path, sequences, &Unfinished::default()).unwrap();
    path
}

/// What a sequence says next: all logits after some tokens, one by one, as bits.
fn next(engine: &Engine, sequence: &mut Sequence, ids: &[u32]) -> Vec<Vec<u32>> {
    let after = |id: &u32| {
        engine.advance(sequence, &[*id], &[LogitsRequest::All], None).unwrap();
        match sequence.logits(0) {
            Some(Logits::All(logits)) => logits.iter().map(|x| x.to_bits()).collect(),
            _ => panic!("all were asked for"),
        }
    };
    ids.iter().map(after).collect()
}

/// Checks a restored sequence against the one that was saved, and then that both say the same.
fn same(engine: &Engine, restored: &mut Sequence, original: &mut Sequence, what: &str) {
    assert_eq!(restored.tokens(), original.tokens(), "{what}");
    assert_eq!((restored.kv(), restored.widened()), (original.kv(), original.widened()), "{what}");
    let ids = Random(9).ids(3, vocab(original.model()));
    assert!(next(engine, restored, &ids) == next(engine, original, &ids), "{what}: other logits");
}

#[test]
fn a_restored_sequence_goes_on_with_the_same_bits() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 2, 200);
    for kv in [KvType::F16, KvType::F32, KvType::Int8] {
        let options = SequenceOptions { kv, ..SequenceOptions::default() };
        for len in [1, 15, 16, 17, 255, 256, 257, 600] {
            let mut original = engine.sequence(options).unwrap();
            engine.advance(&mut original, &Random(len as u64).ids(len, 4096), &[], None).unwrap();
            // What was taken back leaves nothing in the file.
            let more = Random(3).ids(20, 4096);
            engine.advance(&mut original, &more, &[], None).unwrap();
            original.truncate(len);
            let path = write(&folder, &[&original]);
            let saved = SavedSequences::open(&path, &model).unwrap();
            assert_eq!((saved.len(), saved.tokens(0)), (1, original.tokens()));
            for position in [len, len.min(256), len / 2 + 1] {
                let what = format!("{kv}, {position} of {len}");
                let mut restored = saved.restore(0, position, options).unwrap();
                same(&engine, &mut restored, &mut original.fork(position), &what);
            }
            // Nothing depends on the file any more.
            let mut restored = saved.restore(0, len, options).unwrap();
            fs::write(&path, "").unwrap();
            same(&engine, &mut restored, &mut original.fork(len), &format!("{kv} {len} without its file"));
            assert!(SavedSequences::open(&path, &model).unwrap().is_empty());
        }
    }
}

/// The bytes of a file are those of what the sequence is, not of how it came to be or of what it once held.
#[test]
fn a_file_holds_the_text_alone() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 2, 64);
    let ids = Random(4).ids(280, 4096);
    let mut plain = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut plain, &ids, &[], None).unwrap();
    let expected = fs::read(write(&folder, &[&plain])).unwrap();
    let mut other = engine.sequence(SequenceOptions::default()).unwrap();
    for part in ids.chunks(33) {
        engine.advance(&mut other, part, &[], None).unwrap();
        engine.advance(&mut other, &Random(5).ids(50, 4096), &[], None).unwrap();
        other.truncate(other.position() - 50);
    }
    assert!(fs::read(write(&folder, &[&other])).unwrap() == expected);
    let saved = SavedSequences::open(&write(&folder, &[&other]), &model).unwrap();
    let restored = saved.restore(0, usize::MAX, SequenceOptions::default()).unwrap();
    assert!(fs::read(write(&folder, &[&restored])).unwrap() == expected);
}

/// Hybrids: states of both types, with drafts that are logged, snapshots, and states that were lost.
#[test]
fn recurrent_states_come_back_with_and_without_drafts() {
    let (model, folder) = (hybrid(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 2, 48);
    for seed in 0..12 {
        let mut random = Random(seed);
        let state = [StateType::F32, StateType::F16][seed as usize % 2];
        let kv = [KvType::F16, KvType::F32, KvType::Int8][seed as usize % 3];
        let options =
            SequenceOptions { state, kv, snapshots: seed as usize % 4, ..SequenceOptions::default() };
        let mut original = engine.sequence(options).unwrap();
        for turn in 0..20 {
            let position = original.position();
            match random.below(5) {
                0 if position > 0 => original.truncate(1 + random.below(position)),
                1 => original.keep(),
                2 if position > 0 => {
                    let ids = random.ids(4, 80);
                    let mut batch = Batch::new();
                    batch.push_drafted(&mut original, &ids, 3, &[]);
                    assert_eq!(engine.step(&mut batch).unwrap().remove(0).unwrap(), 4);
                    original.truncate(position + 1 + random.below(4));
                }
                _ => {
                    let len = [1, 3, 20, 30][random.below(4)];
                    engine.advance(&mut original, &random.ids(len, 80), &[], None).unwrap();
                }
            }
            if original.position() == 0 {
                continue;
            }
            let saved = SavedSequences::open(&write(&folder, &[&original]), &model).unwrap();
            let mut restored = saved.restore(0, usize::MAX, options).unwrap();
            assert!(restored.state_bytes() <= (options.snapshots + 1) * model.state_bytes());
            let mut fork = original.fork(original.position());
            same(&engine, &mut restored, &mut fork, &format!("seed {seed} turn {turn}"));
            // Going back is what it was, too.
            let position = 1 + random.below(original.position());
            let mut restored = saved.restore(0, position, options).unwrap();
            same(
                &engine,
                &mut restored,
                &mut original.fork(position),
                &format!("seed {seed} turn {turn}: part"),
            );
        }
    }
}

/// A state is where it can be continued: what lies between does not count as known.
#[test]
fn what_need_not_run_is_what_can_be_continued() {
    let folder = tempfile::tempdir().unwrap();
    let ids = Random(6).ids(60, 80);
    let usable = |model: &Arc<Model>, ids: &[u32]| {
        let engine = engine(model, 1, 64);
        let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
        for part in [&ids[..20], &ids[20..40], &ids[40..]] {
            sequence.keep();
            engine.advance(&mut sequence, part, &[], None).unwrap();
        }
        let saved = SavedSequences::open(&write(&folder, &[&sequence]), model).unwrap();
        let mut other = ids.to_vec();
        other[30] = (other[30] + 1) % 80;
        let texts = [ids, &ids[..40], &ids[..41], &other, &ids[..1], &[79, 1], &[]];
        texts.map(|text| saved.best(text).map(|(_, known)| known))
    };
    assert_eq!(usable(&fables(), &ids), [Some(59), Some(39), Some(40), Some(30), None, None, None]);
    // Snapshots at 20 and 40, and the state at 60, which is the whole text.
    assert_eq!(usable(&hybrid(), &ids), [Some(40), Some(20), Some(40), Some(20), None, None, None]);
}

#[test]
fn a_file_holds_sequences_of_which_the_best_is_taken() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 2, 64);
    let ids = Random(7).ids(300, 4096);
    let options = |i: usize| SequenceOptions { kv: [KvType::F16, KvType::Int8][i % 2], ..Default::default() };
    let texts: Vec<Vec<u32>> =
        [10, 270, 40, 3].iter().map(|&at| [&ids[..at], &Random(at as u64).ids(5, 4096)].concat()).collect();
    let mut sequences: Vec<Sequence> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let mut sequence = engine.sequence(options(i)).unwrap();
        engine.advance(&mut sequence, text, &[], None).unwrap();
        sequences.push(sequence);
    }
    let empty = engine.sequence(SequenceOptions::default()).unwrap();
    let path = write(&folder, &[&[&empty], &sequences.iter().collect::<Vec<_>>()[..]].concat());
    let saved = SavedSequences::open(&path, &model).unwrap();
    assert_eq!(saved.len(), 4);
    assert_eq!(saved.best(&ids), Some((1, 270)));
    assert_eq!(saved.best(&texts[3]), Some((3, 7)));
    assert_eq!(saved.best(&ids[..3]), Some((0, 2)));
    for (i, original) in sequences.iter_mut().enumerate() {
        let mut restored = saved.restore(i, usize::MAX, options(i)).unwrap();
        same(&engine, &mut restored, original, &format!("sequence {i}"));
    }
    assert!(matches!(saved.restore(4, 1, options(0)), Err(RuntimeError::Input(_))));
    // Where a record ends the file looks whole.
    let bytes = fs::read(&path).unwrap();
    let end = bytes.len() - u64::from_le_bytes(last_record(&bytes)[48..56].try_into().unwrap()) as usize;
    fs::write(&path, &bytes[..end]).unwrap();
    let error = SavedSequences::open(&path, &model).err().unwrap();
    assert!(matches!(saved_error(error), SavedError::Short { .. }));
}

/// The last record of a file, found by its magic.
fn last_record(bytes: &[u8]) -> &[u8] {
    let mut starts = (0..bytes.len()).step_by(ALIGNMENT as usize);
    let last = starts.rfind(|&at| bytes[at..].starts_with(&trit_format::saved::MAGIC));
    &bytes[last.unwrap()..]
}

#[test]
fn sessions_save_and_restore() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let path = folder.path().join("saved");
    let options = SessionOptions { threads: Some(1), ..SessionOptions::default() };
    let ids = Random(8).ids(50, 4096);
    let mut session = Session::new(model.clone(), options).unwrap();
    session.prefill(&ids).unwrap();
    session.save(&path).unwrap();
    let expected = session.decode(5).unwrap().to_vec();
    let mut session = Session::new(model.clone(), options).unwrap();
    let prompt = [&ids[..], &[5]].concat();
    let known = session.restore(&path, &prompt).unwrap();
    assert_eq!((known, session.position()), (50, 50));
    assert_eq!(session.prefill(&prompt[known..]).unwrap(), expected);
    // Nothing of another text.
    assert_eq!(session.restore(&path, &[4000, 1, 2]).unwrap(), 0);
    assert_eq!(session.position(), 51);
    let other = Session::new(hybrid(), options).unwrap();
    let saved = SavedSequences::open(&path, &model).unwrap();
    assert!(matches!({ other }.restore_from(&saved, &prompt), Err(RuntimeError::Input(_))));
}

#[test]
fn other_types_and_short_contexts_are_refused() {
    let (model, folder) = (hybrid(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 1, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    engine.advance(&mut sequence, &Random(1).ids(30, 80), &[], None).unwrap();
    let saved = SavedSequences::open(&write(&folder, &[&sequence]), &model).unwrap();
    let refused = |options| saved.restore(0, 30, options).err().unwrap();
    let of = SequenceOptions::default;
    for (options, what) in [
        (SequenceOptions { kv: KvType::Int8, ..of() }, "KV cache of f16, and int8 is wanted"),
        (SequenceOptions { state: StateType::F16, ..of() }, "recurrent state of f32, and f16 is wanted"),
    ] {
        let error = refused(options).to_string();
        assert!(error.contains("/saved: was saved with a ") && error.contains(what), "{error}");
    }
    let error = refused(SequenceOptions { context: Some(29), ..of() });
    assert!(matches!(error, RuntimeError::ContextFull { tokens: 30, context: 29, .. }), "{error}");
    saved.restore(0, 29, SequenceOptions { context: Some(29), ..of() }).unwrap();
}

#[test]
fn only_files_of_the_same_kind_are_replaced() {
    let (model, folder) = (fables(), tempfile::tempdir().unwrap());
    let engine = engine(&model, 1, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    let path = folder.path().join("file");
    let save = |sequences: &[&Sequence]| save(&path, sequences, &Unfinished::default());
    assert!(matches!(save(&[&sequence]), Err(RuntimeError::Input(_))), "there is nothing to save");
    engine.advance(&mut sequence, &[1, 2, 3], &[], None).unwrap();
    fs::write(&path, "years of work").unwrap();
    assert!(matches!(save(&[&sequence]), Err(RuntimeError::Output(_))));
    assert_eq!(fs::read(&path).unwrap(), b"years of work");
    fs::write(&path, "").unwrap();
    save(&[&sequence]).unwrap();
    save(&[&sequence, &sequence]).unwrap();
    assert_eq!(SavedSequences::open(&path, &model).unwrap().len(), 2);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // A link stays a link.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        trit_runtime::saved::save(&link, &[&sequence], &Unfinished::default()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(SavedSequences::open(&path, &model).unwrap().len(), 1);
    }
    assert!(matches!(SavedSequences::open(folder.path(), &model), Err(RuntimeError::Io { .. })));
}

// ---- hostile bytes

/// A file with a page that is not full, a whole one, a state and a snapshot; and how long its head is.
fn small(folder: &TempDir, model: &Arc<Model>, tokens: usize) -> (PathBuf, Vec<u8>, usize) {
    let engine = engine(model, 1, 64);
    let mut sequence = engine.sequence(SequenceOptions::default()).unwrap();
    let ids = Random(2).ids(tokens, 80);
    engine.advance(&mut sequence, &ids[..8], &[], None).unwrap();
    sequence.keep();
    engine.advance(&mut sequence, &ids[8..], &[], None).unwrap();
    let path = write(folder, &[&sequence]);
    let bytes = fs::read(&path).unwrap();
    let states = if model.state_bytes() > 0 { 2 } else { 0 };
    let head = HEADER_BYTES as usize + 4 * (tokens + states) + 32 * (tokens.div_ceil(256) + states);
    (path, bytes, head)
}

/// Opens and restores everything.
fn read(path: &Path, model: &Arc<Model>) -> Result<Sequence, RuntimeError> {
    let saved = SavedSequences::open(path, model)?;
    saved.restore(0, usize::MAX, SequenceOptions::default())
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    for model in [fables(), hybrid()] {
        let folder = tempfile::tempdir().unwrap();
        let (path, bytes, head) = small(&folder, &model, 258);
        read(&path, &model).unwrap();
        // Every byte of the head, some of the others, the last ones.
        let places = (0..head).chain((head..bytes.len()).step_by(4093)).chain(bytes.len() - 70..bytes.len());
        for at in places {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).unwrap();
            let error = read(&path, &model).err().unwrap_or_else(|| panic!("byte {at} of {}", bytes.len()));
            let text = error.to_string();
            assert!(text.starts_with(&path.display().to_string()), "byte {at}: {text}");
            saved_error(error);
        }
    }
}

#[test]
fn files_that_are_cut_off_or_go_on_are_refused() {
    let (model, folder) = (hybrid(), tempfile::tempdir().unwrap());
    let (path, bytes, head) = small(&folder, &model, 30);
    let lens = (1..head + 9).chain((head..bytes.len()).step_by(5003)).chain([bytes.len() - 1]);
    for len in lens {
        fs::write(&path, &bytes[..len]).unwrap();
        match saved_error(read(&path, &model).err().unwrap()) {
            SavedError::Short { .. } => {}
            other => panic!("{len} bytes: {other}"),
        }
    }
    for more in [1, 64, 200] {
        fs::write(&path, [&bytes[..], &vec![0; more]].concat()).unwrap();
        let error = saved_error(read(&path, &model).err().unwrap());
        assert_eq!(error, SavedError::Long { bytes: more as u64 });
    }
    // What some other program wrote, of any length.
    for other in ["x", "a note", &"a text ".repeat(100)] {
        fs::write(&path, other).unwrap();
        assert_eq!(saved_error(read(&path, &model).err().unwrap()), SavedError::Magic);
    }
}

#[test]
fn other_bundles_and_versions_are_named() {
    let (model, folder) = (hybrid(), tempfile::tempdir().unwrap());
    let (path, bytes, _) = small(&folder, &model, 30);
    let error = read(&path, &fables()).err().unwrap().to_string();
    assert!(error.contains("was saved with another bundle"), "{error}");
    for (at, words) in [(8, VERSION + 1), (12, NUMERICS + 1)] {
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&words.to_le_bytes());
        fs::write(&path, &changed).unwrap();
        let error = read(&path, &model).err().unwrap().to_string();
        assert!(error.contains("another version of this program"), "{error}");
    }
}

/// Heads with right digests and wrong contents: none is believed, and none makes the reader ask for memory.
#[test]
fn heads_that_lie_are_refused() {
    let (model, folder) = (hybrid(), tempfile::tempdir().unwrap());
    let (path, bytes, len) = small(&folder, &model, 30);
    let expected = {
        use trit_format::saved::{Expected, Shapes};
        let manifest = model.manifest();
        Expected {
            bundle: model.digest(),
            vocab_size: 80,
            context_length: manifest.hyperparameters.context_length,
            shapes: Shapes::of(manifest),
        }
    };
    let head = Head::parse(&bytes[..len], 0, bytes.len() as u64, &expected).unwrap();
    assert_eq!(head.encode(), bytes[..len]);
    assert_eq!((head.header.tokens, head.positions.as_slice()), (30, &[8, 30][..]));
    type Lie = fn(&mut Head);
    let lies: [(&str, Lie); 18] = [
        ("many tokens", |head| head.header.tokens = u32::MAX),
        ("more tokens than the context", |head| head.header.tokens = 1025),
        ("no tokens", |head| head.header.tokens = 0),
        ("another number of tokens", |head| head.header.tokens = 31),
        ("many states", |head| head.header.states = u32::MAX),
        ("another number of states", |head| head.header.states = 3),
        ("no states", |head| head.header.states = 0),
        ("a long record", |head| head.header.len = u64::MAX),
        ("a short record", |head| head.header.len -= 64),
        ("no records", |head| head.header.records = 0),
        ("many records", |head| head.header.records = u32::MAX),
        ("another record", |head| (head.header.record, head.header.records) = (1, 2)),
        ("a record that is missing", |head| head.header.records = 2),
        ("wide without floats", |head| head.header.widened = Some(3)),
        ("another type", |head| head.header.kv = KvElement::F32),
        ("a token outside the vocabulary", |head| head.tokens[7] = 80),
        ("a state from the future", |head| head.positions[1] = 31),
        ("states in disorder", |head| head.positions = vec![30, 8]),
    ];
    for (what, lie) in lies {
        let mut lying = head.clone();
        lie(&mut lying);
        let mut changed = lying.encode();
        changed.extend_from_slice(&bytes[len..]);
        fs::write(&path, &changed).unwrap();
        match saved_error(read(&path, &model).err().unwrap_or_else(|| panic!("{what}"))) {
            SavedError::Header { .. } | SavedError::Short { .. } => {}
            other => panic!("{what}: {other}"),
        }
    }
}
