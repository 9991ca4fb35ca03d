//! `trit-run BUNDLE` on a terminal: a conversation where the model has a chat template, else a text that the user and
//! the model write together.

mod command;
mod entry;
mod history;
mod settings;
mod talk;
mod transcript;

use crate::args::Generate;
use crate::failure::{DONE, Failure, note, print_lines};
use crate::prompt_cache::PromptCache;
use crate::{open, profile, remedies};
use command::{Entered, HELP};
use entry::{Entry, Terminal};
use std::path::Path;
use talk::Talk;

/// Reads entries and answers until the user leaves.
pub fn run(args: &Generate, bundle: &Path) -> Result<u8, Failure> {
    let model = open::model(bundle, &args.session.load, args.verbose)?;
    let tokenizer = open::tokenizer(&model, "--ids")?;
    let template = tokenizer.chat_template().map_err(|e| Failure::text(bundle, e))?;
    if template.is_none() && (args.chat || args.system.is_some()) {
        return Err(open::no_template(&model));
    }
    let mode = if template.is_some() { "chat" } else { "continuation; the model has no chat template" };
    let name = &model.manifest().model.name;
    print_lines(format_args!("{name} ({mode}), {}; /help for help\n", remedies::kernels(model.kernels())))?;
    let cache = PromptCache::open(args, &model)?;
    let mut session = open::session(&model, &args.session)?;
    if args.profile {
        session.start_profile();
    }
    let mut talk = Talk::new(args, &model, tokenizer, template, session, cache)?;
    let mut terminal = Terminal::new(!args.no_history)?;
    let (mut leaving, mut told) = (false, false);
    loop {
        let lines = match terminal.entry()? {
            Entry::Lines(lines) => lines,
            Entry::End => break,
            Entry::Interrupted if leaving => break,
            Entry::Interrupted => {
                leaving = true;
                note("Ctrl-C again leaves");
                continue;
            }
        };
        leaving = false;
        let done = match command::read(&lines) {
            Entered::Nothing => continue,
            Entered::Quit => break,
            Entered::Wrong(problem) => Err(problem),
            Entered::Help => Ok(HELP.to_owned()),
            Entered::Reset => Ok(talk.reset()),
            Entered::Undo => talk.undo(),
            Entered::ShowSystem => talk.show_system(),
            Entered::System(system) => talk.set_system(system.as_deref()),
            Entered::ShowSettings => Ok(talk.settings()),
            Entered::Set(name, value) => talk.set(&name, &value),
            Entered::Save(path) => talk.save(&path),
            Entered::Load(path) => talk.load(&path),
            said @ (Entered::Text(_) | Entered::Retry) => {
                let answer = match said {
                    Entered::Text(text) => talk.ask(&text),
                    _ => talk.retry(),
                }?;
                if let Some(answer) = answer {
                    if args.verbose {
                        note(answer.timings().line(talk.session().threads()));
                    }
                    profile::show_generation(&answer.generation);
                    if !std::mem::replace(&mut told, talk.session().widened().is_some()) {
                        open::tell_widened(talk.session().widened());
                    }
                }
                continue;
            }
        };
        match done {
            Ok(text) => print_lines(text)?,
            Err(problem) => note(problem),
        }
    }
    talk.keep()?;
    Ok(DONE)
}
