//! From arguments to a loaded model and a session on it.

use crate::args::{LoadArgs, SessionArgs};
use crate::failure::{Failure, note};
use crate::{interrupt, mistaken, own, remedies};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::Path;
use std::sync::Arc;
use trit_command::truncation;
use trit_runtime::text::Tokenizer;
use trit_runtime::{
    LoadOptions, MappingHook, Model, Session, SessionOptions, TrustPolicy, Tuning, WeightMemory,
};

/// Loads a bundle. Says which kernels run if they are not what one would expect, or if `verbose` is set.
///
/// # Errors
/// [`mistaken::expect_bundle`], [`Failure::runtime`].
pub fn model(bundle: &Path, args: &LoadArgs, verbose: bool) -> Result<Arc<Model>, Failure> {
    mistaken::expect_bundle(bundle)?;
    let options = LoadOptions {
        kernels: args.kernels,
        cpu: args.cpu,
        trust: trust_policy(bundle, args)?,
        verify: !args.no_verify,
        memory: if args.mmap { WeightMemory::Mapped } else { WeightMemory::Auto },
        tuning: if args.tune { Tuning::Fresh } else { Tuning::Remembered },
        timings: None,
        mapped: Some(MappingHook::new(|path, bytes| Box::new(truncation::enter(path, bytes)))),
    };
    let model = Model::load(bundle, &options).map_err(|e| Failure::runtime(bundle, e))?;
    if verbose || !model.kernels().notes.is_empty() {
        note(format_args!("kernels: {}", remedies::kernels(model.kernels())));
    }
    Ok(model)
}

/// Whose code may run.
fn trust_policy(bundle: &Path, args: &LoadArgs) -> Result<TrustPolicy, Failure> {
    if !args.key.is_empty() {
        return TrustPolicy::signed_by_files(&args.key).map_err(Failure::key);
    }
    let mut trust = TrustPolicy::default();
    trust.everything = args.trust || own::is_own(bundle);
    Ok(trust)
}

/// A session on it, which stops as [`interrupt::stoppable`] says.
///
/// # Errors
/// [`Failure::runtime`].
pub fn session(model: &Arc<Model>, args: &SessionArgs) -> Result<Session, Failure> {
    let options = SessionOptions {
        context: args.context.filter(|&c| c > 0).map(|c| c as usize),
        threads: args.threads.map(usize::from),
        kv: args.load.kv,
        state: args.load.state,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model.clone(), options).map_err(|e| Failure::runtime(model.path(), e))?;
    session.interrupt_by(interrupt::flag());
    if options.threads.is_some_and(|asked| asked > session.threads()) {
        note(format_args!("using {} threads: the system grants this process no more", session.threads()));
    }
    Ok(session)
}

/// Says where a KV cache became another than the one that was asked for, if it did.
pub fn tell_widened(position: Option<usize>) {
    if let Some(position) = position {
        note(format_args!(
            "kv: this model's keys or values are too large for f16, so from token {position} on the cache is one of f32, which \
             takes twice the memory; --kv f32 has it from the start"
        ));
    }
}

/// The model's tokenizer.
///
/// # Errors
/// A usage failure where the bundle has none, naming `instead` as what can be given; [`Failure::runtime`] where it
/// cannot be used.
pub fn tokenizer<'m>(model: &'m Model, instead: &str) -> Result<&'m Tokenizer, Failure> {
    let bundle = model.path().display();
    let missing =
        || Failure::usage(format_args!("{bundle}: has no tokenizer and takes token ids only; use {instead}"));
    model.tokenizer().map_err(|e| Failure::runtime(model.path(), e))?.map(|made| &**made).ok_or_else(missing)
}

/// The failure of a chat with a model that has no chat template.
pub fn no_template(model: &Model) -> Failure {
    let bundle = model.path().display();
    Failure::usage(format_args!("{bundle}: --chat and --system need a chat template, and the model has none"))
}

/// The model's tokenizer, for a user who gave ids. `None` where it has none, or none that can be used: such a user can do with
/// ids.
pub fn tokenizer_if_usable(model: &Model) -> Option<&Tokenizer> {
    let made = model.tokenizer().unwrap_or_else(|error| {
        note(format_args!("{error}; ids are shown instead of text"));
        None
    });
    made.map(|made| &**made)
}

/// A progress bar on standard error; nothing where that is no terminal.
pub fn progress(len: u64, what: &'static str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("a constant template");
    ProgressBar::new(len).with_style(style).with_message(what)
}
