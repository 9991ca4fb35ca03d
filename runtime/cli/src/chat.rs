//! `trit-run BUNDLE` on a terminal: a conversation where the model has a chat template, else a text that the user and
//! the model write together.

use crate::args::Generate;
use crate::failure::{Failure, note, print};
use crate::generate::{Answer, DEFAULT_TOKENS, Request};
use crate::{open, profile};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};
use std::path::Path;
use std::process::ExitCode;
use trit_runtime::generate::Finish;
use trit_runtime::sample::Sampler;
use trit_runtime::text::{ChatTemplate, Message, Tokenizer};
use trit_runtime::{Model, Session};

const HELP: &str = "\
/help   this
/reset  forget everything and begin anew
/quit   leave; so does Ctrl-D, or Ctrl-C twice
Ctrl-C  while the model writes: stop it
";

/// Reads lines and answers until the user leaves.
pub fn run(args: &Generate, bundle: &Path) -> Result<ExitCode, Failure> {
    let model = open::model(bundle, &args.session.load, args.verbose)?;
    let tokenizer = open::tokenizer(&model, "--ids")?;
    let template = tokenizer.chat_template().map_err(|e| Failure::text(bundle, e))?;
    if template.is_none() && args.system.is_some() {
        let name = bundle.display();
        return Err(Failure::usage(format_args!(
            "{name}: --system needs a chat template, and the model has none"
        )));
    }
    let mode = if template.is_some() { "chat" } else { "continuation; the model has no chat template" };
    print(format_args!("{} ({mode}), {}; /help for help\n", model.manifest().model.name, model.kernels()))?;
    let mut session = open::session(&model, &args.session)?;
    if args.profile {
        session.start_profile();
    }
    let mut talk = Talk {
        session,
        sampler: args.sampling.sampler(&model.manifest().text.sampling),
        request: Request {
            model: &model,
            max_new: args.n.unwrap_or(if template.is_some() { usize::MAX } else { DEFAULT_TOKENS }),
            ignore_eos: args.ignore_eos,
            speculate: !args.no_speculation,
            show: true,
        },
        model: &model,
        tokenizer,
        template,
        system: args.system.as_deref(),
        conversation: Conversation::new(args.system.as_deref()),
        tokens: Vec::new(),
    };
    let terminal = |e: ReadlineError| Failure::internal(format_args!("terminal: {e}"));
    let mut editor: Editor<(), MemHistory> =
        Editor::with_history(Config::default(), MemHistory::new()).map_err(terminal)?;
    let (mut leaving, mut told) = (false, false);
    loop {
        let line = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(ExitCode::SUCCESS),
            Err(ReadlineError::Interrupted) if leaving => return Ok(ExitCode::SUCCESS),
            Err(ReadlineError::Interrupted) => {
                leaving = true;
                note("Ctrl-C again leaves");
                continue;
            }
            Err(error) => return Err(terminal(error)),
        };
        leaving = false;
        // The history is a convenience; that a line is not kept is no reason to stop.
        let _ = editor.add_history_entry(&line);
        match line.trim() {
            "" => {}
            "/quit" => return Ok(ExitCode::SUCCESS),
            "/help" => print(HELP)?,
            "/reset" => talk.reset(),
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                note(format_args!("{command} is no command; /help lists them"));
            }
            _ => {
                if let Some(answer) = talk.answer(&line)? {
                    if args.verbose {
                        note(answer.timings().line(talk.session.threads()));
                    }
                    profile::show_generation(&answer.generation);
                    if !std::mem::replace(&mut told, talk.session.widened().is_some()) {
                        open::tell_widened(&talk.session);
                    }
                }
            }
        }
    }
}

struct Talk<'m> {
    model: &'m Model,
    session: Session,
    sampler: Sampler,
    request: Request<'m>,
    tokenizer: &'m Tokenizer,
    template: Option<ChatTemplate>,
    system: Option<&'m str>,
    conversation: Conversation,
    /// What the session holds.
    tokens: Vec<u32>,
}

impl Talk<'_> {
    fn reset(&mut self) {
        self.session.truncate(0);
        self.tokens.clear();
        self.conversation = Conversation::new(self.system);
    }

    /// Answers one line; `None` where it could not be answered, which was said.
    fn answer(&mut self, line: &str) -> Result<Option<Answer>, Failure> {
        let ids = match self.template.take() {
            Some(template) => {
                let ids = self.chat_ids(&template, line);
                self.template = Some(template);
                ids
            }
            None => self.continued_ids(line),
        };
        let ids = match ids {
            Ok(ids) => ids,
            Err(problem) => {
                note(problem);
                return Ok(None);
            }
        };
        // What the session already knows stays; at least one token must run to give logits.
        let common = self.tokens.iter().zip(&ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
        self.session.truncate(common);
        let answer = self.request.run(&mut self.session, &ids[common..], &mut self.sampler)?;
        print("\n")?;
        self.tokens = ids;
        self.tokens.extend(&answer.generation.ids);
        self.tokens.truncate(self.session.position());
        if self.template.is_some() {
            self.conversation.0.push(Message::new("assistant", answer.text.trim()));
        }
        if answer.generation.finish == Finish::Context {
            let context = self.session.context_length();
            let then = if self.template.is_some() {
                "the oldest turns will be forgotten"
            } else {
                "/reset begins anew"
            };
            note(format_args!("the context of {context} tokens is full; {then}"));
        }
        Ok(Some(answer))
    }

    /// The conversation with one more message, without its oldest turns where they do not fit.
    fn chat_ids(&mut self, template: &ChatTemplate, line: &str) -> Result<Vec<u32>, String> {
        self.conversation.0.push(Message::new("user", line));
        let context = self.session.context_length();
        loop {
            let ids = match self.tokenizer.encode_chat(template, &self.conversation.0) {
                Ok(ids) if !ids.is_empty() => ids,
                Ok(_) => {
                    self.conversation.0.pop();
                    return Err("the chat template gave an empty prompt".into());
                }
                Err(error) => {
                    self.conversation.0.pop();
                    return Err(format!("{}: {error}", self.model.path().display()));
                }
            };
            // An answer needs room too.
            if ids.len() + context / 8 < context {
                return Ok(ids);
            }
            if !self.conversation.forget_oldest_turn() {
                self.conversation.0.pop();
                return Err(format!("{} tokens are too long for the context of {context}", ids.len()));
            }
        }
    }

    fn continued_ids(&mut self, line: &str) -> Result<Vec<u32>, String> {
        let begins = self.tokens.is_empty();
        let more = self.tokenizer.encode(line, begins).map_err(|e| e.to_string())?;
        let ids = [&self.tokens[..], &more].concat();
        let context = self.session.context_length();
        match ids.len() {
            0 => Err("that gives no tokens".into()),
            len if len >= context => {
                Err(format!("{len} tokens do not fit the context of {context}; /reset begins anew"))
            }
            _ => Ok(ids),
        }
    }
}

/// Messages so far.
struct Conversation(Vec<Message>);

impl Conversation {
    fn new(system: Option<&str>) -> Conversation {
        Conversation(system.map(|text| Message::new("system", text)).into_iter().collect())
    }

    /// Drops the first question and its answer; false where only the last question is left.
    fn forget_oldest_turn(&mut self) -> bool {
        let first = usize::from(self.0.first().is_some_and(|m| m.role == "system"));
        let turn = first..first + 2;
        let forgets = turn.end < self.0.len();
        if forgets {
            self.0.drain(turn);
        }
        forgets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_message_and_the_last_question_are_never_forgotten() {
        let mut conversation = Conversation::new(Some("s"));
        for (role, text) in [("user", "1"), ("assistant", "2"), ("user", "3")] {
            conversation.0.push(Message::new(role, text));
        }
        assert!(conversation.forget_oldest_turn());
        assert!(!conversation.forget_oldest_turn());
        let left: Vec<&str> = conversation.0.iter().map(|m| m.content.as_str()).collect();
        assert_eq!(left, ["s", "3"]);
    }
}
