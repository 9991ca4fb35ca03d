//! A conversation: what was said, and the ids that the model is to continue.
//!
//! Messages are kept as they were said, and an answer exactly as it was generated. A template that wants trimmed messages
//! trims them itself, and a model whose template does not trim was trained on untrimmed text. So the prompt of every turn is
//! the one that the template makes of these messages anywhere else.

use crate::{ChatTemplate, Message, TemplateInput, TextError, Tokenizer};

/// Messages so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    messages: Vec<Message>,
}

const SYSTEM: &str = "system";
const USER: &str = "user";
const ASSISTANT: &str = "assistant";

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Conversation {
        Conversation { messages }
    }
}

impl Conversation {
    /// A conversation in which nothing was said but `system`.
    pub fn new(system: Option<&str>) -> Conversation {
        let mut conversation = Conversation::default();
        conversation.set_system(system);
        conversation
    }

    /// Everything that was said, oldest first.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The system message.
    pub fn system(&self) -> Option<&str> {
        self.messages.first().filter(|m| m.role == SYSTEM).map(|m| m.content.as_str())
    }

    /// Replaces the system message, or removes it.
    pub fn set_system(&mut self, system: Option<&str>) {
        if self.system().is_some() {
            self.messages.remove(0);
        }
        if let Some(text) = system {
            self.messages.insert(0, Message::new(SYSTEM, text));
        }
    }

    /// The user says something.
    pub fn ask(&mut self, text: impl Into<String>) {
        self.messages.push(Message::new(USER, text));
    }

    /// The model has answered: the text of the ids it generated without special tokens, not trimmed.
    pub fn answered(&mut self, text: impl Into<String>) {
        self.messages.push(Message::new(ASSISTANT, text));
    }

    /// Whether what was said last is for the model to answer.
    pub fn awaits_answer(&self) -> bool {
        self.messages.last().is_some_and(|m| m.role != ASSISTANT && m.role != SYSTEM)
    }

    /// Takes back the last question with all that followed; false where there is none.
    pub fn take_back_question(&mut self) -> bool {
        let last = self.messages.iter().rposition(|m| m.role == USER);
        last.inspect(|&at| self.messages.truncate(at)).is_some()
    }

    /// Takes back what followed the last question; false where there is no question.
    pub fn take_back_answer(&mut self) -> bool {
        let last = self.messages.iter().rposition(|m| m.role == USER);
        last.inspect(|&at| self.messages.truncate(at + 1)).is_some()
    }

    /// The ids of the conversation, after which the model is to answer. An eighth of a context of `context` tokens is kept for
    /// the answer. Where the ids do not fit the rest, the oldest turns are forgotten for ever. The system message and the last
    /// question are never forgotten.
    ///
    /// # Errors
    /// [`TextError::TooLong`] where even the last question leaves no room, [`TextError::Template`] where the template
    /// refuses the conversation or makes no prompt of it, [`TextError::Interrupted`] where `interrupted` says so
    /// meanwhile, [`TextError::Encode`]. The conversation then stays as it was.
    pub fn prompt(
        &mut self,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        context: usize,
        interrupted: &dyn Fn() -> bool,
    ) -> Result<Vec<u32>, TextError> {
        let room = context.saturating_sub(context / 8 + 1);
        let first = usize::from(self.system().is_some());
        let without = |turns: &[usize], forgotten: usize| {
            // Everything before the second question belongs to the first turn, whoever said it.
            let from = if forgotten == 0 { first } else { turns[forgotten] };
            let messages = [&self.messages[..first], &self.messages[from..]].concat();
            let text = template.render_input(&TemplateInput::new(&messages, true)?, interrupted)?;
            match tokenizer.encode_within(&text, false, room) {
                Ok(ids) if ids.is_empty() => Err(TextError::Template("it made an empty prompt".into())),
                Ok(ids) => Ok(Ok((messages, ids))),
                Err(long @ TextError::TooLong { .. }) => Ok(Err(long)),
                Err(error) => Err(error),
            }
        };
        let too_long = match without(&[], 0)? {
            Ok((_, ids)) => return Ok(ids),
            Err(too_long) => too_long,
        };
        let questions = self.messages.iter().enumerate().filter(|(_, m)| m.role == USER).map(|(at, _)| at);
        let turns: Vec<usize> = questions.collect();
        // Every turn has tokens, so that the number of turns to forget is found in few steps, also where a long
        // conversation was read from a file.
        let (mut few, mut enough) = (0, turns.len().saturating_sub(1));
        if enough == 0 {
            return Err(too_long);
        }
        let mut found = without(&turns, enough)??;
        while enough - few > 1 {
            let middle = few + (enough - few) / 2;
            match without(&turns, middle)? {
                Ok(fits) => (enough, found) = (middle, fits),
                Err(_) => few = middle,
            }
        }
        let (messages, ids) = found;
        self.messages = messages;
        Ok(ids)
    }
}

/// How many of the first `ids` need not be run again by a session that holds `held`: those that both begin with. It is never
/// all of them, because the last one must run to give logits.
pub fn shared_prefix(held: &[u32], ids: &[u32]) -> usize {
    held.iter().zip(ids).take_while(|(a, b)| a == b).count().min(ids.len().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::fables;

    /// Writes messages as they are; refuses what the user never says.
    const PLAIN: &str = "{% for m in messages %}{% if m.content == 'forbidden' %}{{ raise_exception('no') }}{% endif %}\
        <{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";

    fn template() -> ChatTemplate {
        ChatTemplate::new(PLAIN, &[]).unwrap()
    }

    fn said(conversation: &Conversation) -> Vec<&str> {
        conversation.messages().iter().map(|m| m.content.as_str()).collect()
    }

    /// `turns` answered questions after a system message, then one more question.
    fn long(turns: usize) -> Conversation {
        let mut conversation = Conversation::new(Some("Be brief."));
        for turn in 0..turns {
            conversation.ask(format!("question {turn}"));
            conversation.answered(format!(" answer {turn}\n"));
        }
        conversation.ask("the last question");
        conversation
    }

    #[test]
    fn an_answer_stands_in_the_next_prompt_as_it_was_generated() {
        let (tokenizer, template) = (fables(), template());
        let generated = " \n The fox ran.\n\n";
        let mut conversation = Conversation::new(Some("Be brief."));
        conversation.ask("Who ran?");
        conversation.prompt(&tokenizer, &template, 1024, &|| false).unwrap();
        conversation.answered(generated);
        conversation.ask("Where?");
        let ids = conversation.prompt(&tokenizer, &template, 1024, &|| false).unwrap();
        let expected =
            format!("<system>Be brief.<user>Who ran?<assistant>{generated}<user>Where?<assistant>");
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), expected);
        assert_eq!(ids, tokenizer.encode(&expected, false).unwrap());
    }

    #[test]
    fn what_was_generated_need_not_be_run_again() {
        let (tokenizer, template) = (fables(), template());
        let mut conversation = Conversation::new(None);
        conversation.ask("Who ran?");
        let prompt = conversation.prompt(&tokenizer, &template, 1024, &|| false).unwrap();
        let generated = tokenizer.encode(" The fox ran. \n", false).unwrap();
        conversation.answered(tokenizer.decode(&generated, true).unwrap());
        conversation.ask("Where?");
        let held = [prompt, generated].concat();
        let ids = conversation.prompt(&tokenizer, &template, 1024, &|| false).unwrap();
        assert_eq!(shared_prefix(&held, &ids), held.len(), "{held:?} {ids:?}");
        assert_eq!(shared_prefix(&ids, &ids), ids.len() - 1);
        assert_eq!(shared_prefix(&ids, &[]), 0);
    }

    #[test]
    fn the_oldest_turns_are_forgotten_and_no_more_than_needed() {
        let (tokenizer, template) = (fables(), template());
        let whole = long(20).prompt(&tokenizer, &template, 4096, &|| false).unwrap().len();
        for kept in 0..20 {
            // The context that `kept` turns just fit.
            let fitting = {
                let mut conversation = Conversation::new(Some("Be brief."));
                conversation.messages.extend_from_slice(&long(20).messages[1 + 2 * (20 - kept)..]);
                conversation.prompt(&tokenizer, &template, 4096, &|| false).unwrap().len()
            };
            let context = (fitting..).find(|context| fitting + context / 8 < *context).unwrap();
            let mut conversation = long(20);
            let ids = conversation.prompt(&tokenizer, &template, context, &|| false).unwrap();
            assert_eq!((ids.len(), said(&conversation).len()), (fitting, 2 + 2 * kept));
            assert!(fitting < whole);
            let said = said(&conversation);
            assert_eq!((said[0], said[said.len() - 1]), ("Be brief.", "the last question"));
        }
    }

    #[test]
    fn the_system_message_and_the_last_question_are_never_forgotten() {
        let (tokenizer, template) = (fables(), template());
        for mut conversation in [long(0), long(5)] {
            let before = conversation.clone();
            let error = conversation.prompt(&tokenizer, &template, 8, &|| false).unwrap_err();
            assert!(matches!(error, TextError::TooLong { limit: 6, .. }), "{error}");
            assert_eq!(conversation, before, "what cannot be asked leaves everything as it was");
        }
    }

    #[test]
    fn what_a_template_refuses_leaves_the_conversation() {
        let (tokenizer, template) = (fables(), template());
        let mut conversation = long(1);
        conversation.ask("forbidden");
        let before = conversation.clone();
        assert!(conversation.prompt(&tokenizer, &template, 1024, &|| false).is_err());
        assert_eq!(conversation, before);
        // A template is asked to stop only now and then.
        let endless = ChatTemplate::new(
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            &[],
        );
        let stopped = conversation.prompt(&tokenizer, &endless.unwrap(), 1024, &|| true);
        assert_eq!((stopped, &conversation), (Err(TextError::Interrupted), &before));
        let empty = ChatTemplate::new("{# nothing #}", &[]).unwrap();
        assert!(
            long(1).prompt(&tokenizer, &empty, 1024, &|| false).unwrap_err().to_string().contains("empty")
        );
    }

    #[test]
    fn questions_and_answers_can_be_taken_back() {
        let mut conversation = long(1);
        assert!(conversation.awaits_answer());
        conversation.answered("so");
        assert!(!conversation.awaits_answer());
        assert!(conversation.take_back_answer() && conversation.awaits_answer());
        assert!(conversation.take_back_question() && conversation.take_back_question());
        assert!(!conversation.take_back_question() && !conversation.take_back_answer());
        assert_eq!(said(&conversation), ["Be brief."]);
        assert!(!conversation.awaits_answer());
    }

    #[test]
    fn the_system_message_comes_and_goes() {
        let mut conversation = Conversation::new(None);
        conversation.ask("1");
        assert_eq!(conversation.system(), None);
        conversation.set_system(Some("a"));
        conversation.set_system(Some("b"));
        assert_eq!((conversation.system(), said(&conversation).len()), (Some("b"), 2));
        conversation.set_system(None);
        assert_eq!(said(&conversation), ["1"]);
    }
}
