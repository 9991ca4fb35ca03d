//! What a chat is made of, and what can be done with it.
//!
//! Commands give a text to print, or one line that says why nothing was done; only what nobody can go on after is a
//! [`Failure`].

use super::settings::Settings;
use super::transcript;
use crate::args::Generate;
use crate::failure::{Failure, note, print};
use crate::generate::{Answer, DEFAULT_TOKENS, Request};
use crate::interrupt;
use crate::prompt_cache::PromptCache;
use std::path::Path;
use trit_runtime::generate::{Finish, Generator};
use trit_runtime::text::{ChatTemplate, Conversation, TemplateInput, TextError, Tokenizer};
use trit_runtime::{Model, Session};

/// A chat, or a text written together where there is no template.
pub struct Talk<'m> {
    model: &'m Model,
    tokenizer: &'m Tokenizer,
    template: Option<ChatTemplate>,
    generator: Generator,
    settings: Settings,
    request: Request<'m>,
    conversation: Conversation,
    /// Where there is no template, the text so far. The session has not run the last token of an answer.
    written: Vec<u32>,
    cache: Option<PromptCache<'m>>,
}

/// What to print, or why nothing was done.
type Done = Result<String, String>;

impl<'m> Talk<'m> {
    /// A chat in which nothing was said yet but the system message.
    pub fn new(
        args: &'m Generate,
        model: &'m Model,
        tokenizer: &'m Tokenizer,
        template: Option<ChatTemplate>,
        session: Session,
        cache: Option<PromptCache<'m>>,
    ) -> Result<Talk<'m>, Failure> {
        let settings = Settings { sampling: args.sampling.clone(), n: args.n };
        let sampler = settings.sampler(&model.manifest().text.sampling);
        let generator = Generator::new(session, sampler).map_err(|e| Failure::runtime(model.path(), e))?;
        let request = Request {
            max_new: 0,
            ignore_eos: args.ignore_eos,
            speculate: !args.no_speculation,
            show: true,
            stop: &args.stop,
            #[cfg(feature = "guide")]
            guides: crate::grammar::Guides::new(args, model)?,
        };
        let mut talk = Talk {
            model,
            tokenizer,
            template,
            generator,
            settings,
            request,
            conversation: Conversation::new(args.system.as_deref()),
            written: Vec::new(),
            cache,
        };
        talk.limit();
        Ok(talk)
    }

    /// What it runs on.
    pub fn session(&self) -> &Session {
        self.generator.session()
    }

    /// Says something and gives the answer, which was printed; `None` where there is none, which was said. Then it is
    /// as if nothing had been said.
    ///
    /// # Errors
    /// Where standard output or the model cannot be used any more.
    pub fn ask(&mut self, text: &str) -> Result<Option<Answer>, Failure> {
        if self.template.is_none() {
            return self.go_on(text);
        }
        self.conversation.ask(text);
        let answer = self.answer()?;
        if answer.is_none() {
            self.conversation.take_back_question();
        }
        Ok(answer)
    }

    /// Answers the last question again.
    ///
    /// # Errors
    /// As [`Talk::ask`].
    pub fn retry(&mut self) -> Result<Option<Answer>, Failure> {
        let before = self.conversation.clone();
        if let Err(problem) = self.chat() {
            note(problem);
            return Ok(None);
        }
        if !self.conversation.take_back_answer() {
            note("there is no question yet");
            return Ok(None);
        }
        let answer = self.answer()?;
        if answer.is_none() {
            self.conversation = before;
        }
        Ok(answer)
    }

    /// Answers what was said last.
    fn answer(&mut self) -> Result<Option<Answer>, Failure> {
        let Some(template) = &self.template else { return Ok(None) };
        let context = self.session().context_length();
        let ids = {
            let stoppable = interrupt::stoppable();
            let stop = || stoppable.requested();
            let ids = self.conversation.prompt(self.tokenizer, template, context, &stop);
            if stop() { Err(TextError::Interrupted) } else { ids }
        };
        let answer = match ids {
            Ok(ids) => self.generate(&ids, "the oldest turns will be forgotten")?,
            Err(TextError::Interrupted) => {
                print("\n")?;
                None
            }
            Err(error) => {
                note(format_args!("{}: {error}", self.model.path().display()));
                None
            }
        };
        if let Some(answer) = &answer {
            // What transformers gives for these ids. The text that was printed may begin otherwise: some tokenizers drop
            // a space before the first word.
            let text = self.tokenizer.decode(&answer.generation.ids, true);
            let text = text.map_err(|e| Failure::text(self.model.path(), e))?;
            // What was asked to end the answer is no part of it.
            self.conversation.answered(self.generator.before_stop(&text));
        }
        Ok(answer)
    }

    /// Writes on after `text`.
    fn go_on(&mut self, text: &str) -> Result<Option<Answer>, Failure> {
        let context = self.session().context_length();
        let more = match self.tokenizer.encode_within(text, self.written.is_empty(), context) {
            Ok(more) => more,
            Err(error) => {
                note(error);
                return Ok(None);
            }
        };
        let ids = [&self.written[..], &more].concat();
        match ids.len() {
            0 => note("that gives no tokens"),
            len if len >= context => {
                note(format_args!("{len} tokens do not fit the context of {context}; /reset begins anew"));
            }
            _ => {
                let answer = self.generate(&ids, "/reset begins anew")?;
                if let Some(answer) = &answer {
                    self.written = [&ids[..], &answer.generation.ids].concat();
                }
                return Ok(answer);
            }
        }
        Ok(None)
    }

    /// Generates after `ids`, of which the session may have run some. `when_full` says what happens then.
    fn generate(&mut self, ids: &[u32], when_full: &str) -> Result<Option<Answer>, Failure> {
        if let Some(cache) = &mut self.cache {
            cache.warm(self.generator.session_mut(), ids)?;
        }
        let answer = self.request.run(&mut self.generator, ids)?;
        print("\n")?;
        // Ctrl-C before the model had anything to say: nothing was asked.
        if answer.generation.finish == Finish::Interrupted && answer.generation.ids.is_empty() {
            return Ok(None);
        }
        if answer.generation.finish == Finish::Context {
            let context = self.session().context_length();
            note(format_args!("the context of {context} tokens is full; {when_full}"));
        }
        Ok(Some(answer))
    }

    /// Keeps what has run in the file of `--prompt-cache`, when the user leaves.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn keep(&mut self) -> Result<(), Failure> {
        let session = self.generator.session_mut();
        self.cache.as_ref().map_or(Ok(()), |cache| cache.save(session))
    }

    /// Forgets everything but the system message.
    pub fn reset(&mut self) -> String {
        self.generator.session_mut().truncate(0);
        self.written.clear();
        self.conversation = Conversation::new(self.conversation.system());
        String::new()
    }

    /// Takes back the last question and its answer.
    pub fn undo(&mut self) -> Done {
        self.chat()?;
        match self.conversation.take_back_question() {
            true => Ok(format!("{} left\n", self.count())),
            false => Err("there is no question yet".into()),
        }
    }

    /// The system message.
    pub fn show_system(&self) -> Done {
        self.chat()?;
        let system = self.conversation.system().ok_or("there is no system message; /system TEXT says one")?;
        Ok(format!("{system}\n"))
    }

    /// Replaces the system message for all that follows, or takes it away.
    pub fn set_system(&mut self, system: Option<&str>) -> Done {
        self.chat()?;
        self.conversation.set_system(system);
        Ok(String::new())
    }

    /// How tokens are chosen.
    pub fn settings(&self) -> String {
        self.settings.show(self.generator.sampler().options())
    }

    /// Changes a setting. The random sequence begins anew.
    pub fn set(&mut self, name: &str, value: &str) -> Done {
        self.settings.set(name, value)?;
        self.generator.set_sampler(self.settings.sampler(&self.model.manifest().text.sampling));
        self.limit();
        Ok(String::new())
    }

    /// Writes the conversation to a file.
    pub fn save(&self, path: &Path) -> Done {
        self.chat()?;
        let replaced = if transcript::save(path, &self.conversation)? { ", in place of another" } else { "" };
        Ok(format!("{} in {}{replaced}\n", self.count(), path.display()))
    }

    /// Goes on with a conversation from a file.
    pub fn load(&mut self, path: &Path) -> Done {
        let template = self.chat()?;
        let (conversation, left_out) = transcript::load(path)?;
        // Better now than after the next question.
        let refused = |e| format!("{}: this model cannot go on with that: {e}", path.display());
        let input = TemplateInput::new(conversation.messages(), true).map_err(refused)?;
        let stoppable = interrupt::stoppable();
        template.render_input(&input, &|| stoppable.requested()).map_err(refused)?;
        self.conversation = conversation;
        if !left_out.is_empty() {
            let names = left_out.join(", ");
            note(format_args!("{}: only roles and contents are kept, not {names}", path.display()));
        }
        let then = if self.conversation.awaits_answer() { "; /retry answers the last" } else { "" };
        Ok(format!("{}{then}\n", self.count()))
    }

    fn count(&self) -> String {
        match self.conversation.messages().len() {
            1 => "1 message".to_owned(),
            count => format!("{count} messages"),
        }
    }

    /// The template, without which there is no conversation.
    fn chat(&self) -> Result<&ChatTemplate, String> {
        self.template.as_ref().ok_or_else(|| "that needs a chat template, and the model has none".into())
    }

    fn limit(&mut self) {
        let most = if self.template.is_some() { usize::MAX } else { DEFAULT_TOKENS };
        self.request.max_new = self.settings.n.unwrap_or(most);
    }
}
