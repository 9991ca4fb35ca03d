//! Splits the text of an answer into its parts, character by character, so that it makes no difference where the text is cut.
//!
//! Text is held back while it may be the beginning of something else: a mark, a call whose tool is not known yet, white space
//! before a mark. What looked like a call and is none is text after all. Once a call was given out it stays one: what does
//! not fit any more is then the rest of its arguments, as the model wrote it.

use super::Part;
use super::call::{self, JsonCall};
use super::form::{Calls, END_CALL, END_THOUGHT, Form, START_THOUGHT};
use super::json::Invalid;
use super::tools::Tools;
use super::xml::{self, XmlCall};
use std::collections::VecDeque;

/// Most bytes of what may be a call that are held back until it shows.
const MAX_HELD: usize = 64 << 10;

/// Splits the text of an answer into its parts while it is generated.
#[derive(Debug, Default)]
pub struct Splitter {
    thoughts: bool,
    /// How calls are written; `None` where there are no tools to call.
    calls: Option<Calls>,
    tools: Tools,
    /// What the ids of calls begin with.
    ids: String,
    state: State,
    /// What may become a mark.
    partial: String,
    /// White space that is given out only if text follows.
    space: String,
    /// How many calls have begun.
    begun: usize,
    /// Characters that are read next.
    queue: VecDeque<char>,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum State {
    Text(Text),
    Thought {
        /// Whether the model has thought anything but white space.
        begun: bool,
    },
    Calls(Block),
}

/// Where in what the model says.
#[derive(Clone, Copy, Debug)]
struct Text {
    /// Whether the answer begins here: nothing came but white space and thoughts.
    first: bool,
    /// Whether a thought may begin here.
    thought: bool,
    /// Whether a thought ended here. Lines that end after it are layout.
    after_thought: bool,
    /// Whether calls ended here. White space after them is layout.
    after_call: bool,
}

impl Default for State {
    fn default() -> State {
        State::Text(Text { first: true, thought: true, after_thought: false, after_call: false })
    }
}

/// Calls that follow each other.
#[derive(Debug)]
struct Block {
    /// What was read since the mark, or since the last call in it.
    raw: String,
    /// Whether the calls stand in a list.
    list: bool,
    /// Whether a mark ends it.
    marked: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// A call must come.
    Open,
    Json(JsonCall),
    Xml(XmlCall),
    /// A call has ended. Another one may come, or the end.
    Between,
    /// The mark at the end must come.
    End,
    /// What comes up to the mark at the end are arguments that are no JSON.
    Broken,
}

impl Splitter {
    /// For an answer that calls of `tools` may stand in. `opened` says that the prompt ends where a thought begins. The ids of
    /// calls begin with `ids`.
    pub(super) fn with(form: &Form, tools: Tools, opened: bool, ids: String) -> Splitter {
        let calls = Some(form.calls).filter(|_| !tools.is_empty());
        let state = if opened { State::Thought { begun: false } } else { State::default() };
        Splitter { thoughts: form.thoughts, calls, tools, ids, state, ..Splitter::default() }
    }

    /// For an answer that is text alone.
    pub fn plain() -> Splitter {
        Splitter::default()
    }

    /// Whether the model is thinking.
    pub fn is_thinking(&self) -> bool {
        matches!(self.state, State::Thought { .. })
    }

    /// Takes more of the text, and gives the parts that are certain.
    pub fn push(&mut self, text: &str) -> Vec<Part> {
        self.queue.extend(text.chars());
        self.run();
        std::mem::take(&mut self.parts)
    }

    /// Takes a special token, which gives no text, as the vocabulary spells it.
    pub fn push_special(&mut self, token: &str) -> Vec<Part> {
        if self.is_mark(token) { self.push(token) } else { Vec::new() }
    }

    /// Whether a special token means something here.
    pub fn is_mark(&self, token: &str) -> bool {
        let thought = self.thoughts && [START_THOUGHT, END_THOUGHT].contains(&token);
        thought || self.calls.is_some_and(|calls| calls.marks().contains(&token))
    }

    /// Gives the parts that are left: nothing more comes.
    pub fn finish(&mut self) -> Vec<Part> {
        // What looked like a call becomes text, in which another one may begin.
        while let State::Calls(block) = &mut self.state {
            let rest = std::mem::take(&mut self.partial);
            match &mut block.stage {
                Stage::Xml(call) if block.raw.is_empty() => {
                    let mut json = String::new();
                    call.finish(&mut json);
                    self.arguments(&json);
                }
                Stage::Json(call) if call.is_in_arguments() => {}
                Stage::Broken => self.arguments(&rest),
                // The beginning of the mark at the end says nothing.
                Stage::Between | Stage::End if block.raw.trim().is_empty() || block.marked => {}
                _ => {
                    self.give_up();
                    self.run();
                    continue;
                }
            }
            self.state =
                State::Text(Text { first: false, thought: false, after_thought: false, after_call: true });
        }
        for c in std::mem::take(&mut self.partial).chars() {
            self.release(c);
        }
        if let State::Text(text) = self.state
            && !text.after_call
            && !text.after_thought
        {
            let space = std::mem::take(&mut self.space);
            self.text(&space);
        }
        std::mem::take(&mut self.parts)
    }

    fn run(&mut self) {
        while let Some(c) = self.queue.pop_front() {
            match &self.state {
                State::Text(text) => self.in_text(c, *text),
                State::Thought { .. } => self.marked(c, &[END_THOUGHT]),
                State::Calls(_) => self.in_calls(c),
            }
        }
    }

    // ---- text and thoughts

    fn in_text(&mut self, c: char, text: Text) {
        let bare = self.calls == Some(Calls::Bare) && text.first && self.partial.is_empty();
        if bare && matches!(c, '{' | '[') {
            return self.open(c.to_string());
        }
        let mut marks = [""; 2];
        if self.thoughts && text.thought {
            marks[0] = START_THOUGHT;
        }
        if let Some(calls) = self.calls {
            marks[1] = calls.start();
        }
        self.marked(c, &marks);
    }

    /// Takes a character of what ends with one of `marks`.
    fn marked(&mut self, c: char, marks: &[&str]) {
        self.partial.push(c);
        while !self.partial.is_empty() && !marks.iter().any(|mark| mark.starts_with(&self.partial)) {
            let certain = self.partial.remove(0);
            self.release(certain);
        }
        if !marks.contains(&self.partial.as_str()) || self.partial.is_empty() {
            return;
        }
        match std::mem::take(&mut self.partial).as_str() {
            START_THOUGHT => {
                self.space.clear();
                self.state = State::Thought { begun: false };
            }
            END_THOUGHT => {
                self.space.clear();
                self.state =
                    State::Text(Text { first: true, thought: false, after_thought: true, after_call: false });
            }
            mark => self.open(mark.to_owned()),
        }
    }

    /// A character is no part of a mark.
    fn release(&mut self, c: char) {
        let white = c.is_whitespace();
        match &mut self.state {
            State::Text(text) => {
                let holds = self.calls.is_some() || text.after_thought || self.thoughts && text.thought;
                if white && holds {
                    return self.space.push(c);
                }
                let mut said = std::mem::take(&mut self.space);
                if text.after_thought {
                    said = said.trim_start_matches(['\n', '\r']).to_owned();
                }
                if !white {
                    *text = Text { first: false, thought: false, after_thought: false, after_call: false };
                }
                said.push(c);
                self.text(&said);
            }
            State::Thought { begun: false } if white => {}
            State::Thought { .. } if white => self.space.push(c),
            State::Thought { begun } => {
                *begun = true;
                self.space.push(c);
                let thought = std::mem::take(&mut self.space);
                match self.parts.last_mut() {
                    Some(Part::Reasoning(last)) => last.push_str(&thought),
                    _ => self.parts.push(Part::Reasoning(thought)),
                }
            }
            State::Calls(_) => {}
        }
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    // ---- calls

    /// Calls may begin after this mark.
    fn open(&mut self, mark: String) {
        let marked = self.calls.is_some_and(|calls| calls != Calls::Bare);
        let mut block = Block { raw: mark, list: false, marked, stage: Stage::Open };
        match block.raw.as_str() {
            "[" => block.list = true,
            "{" => {
                let mut call = JsonCall::default();
                // An object's opening brace is never wrong.
                let _ = call.step('{', &self.tools);
                block.stage = Stage::Json(call);
            }
            _ if self.calls == Some(Calls::Xml) => block.stage = Stage::Xml(XmlCall::default()),
            _ => {}
        }
        self.state = State::Calls(block);
    }

    fn in_calls(&mut self, c: char) {
        let State::Calls(block) = &mut self.state else { return };
        match &mut block.stage {
            Stage::Broken => self.in_broken(c),
            Stage::End => self.in_end(c),
            stage @ (Stage::Open | Stage::Between) => {
                let between = matches!(stage, Stage::Between);
                match c {
                    _ if c.is_whitespace() => block.raw.push(c),
                    ',' | ';' if between && block.raw.trim().is_empty() && (block.list || !block.marked) => {
                        block.raw.push(c);
                    }
                    '[' if !between && !block.list => {
                        block.list = true;
                        block.raw.push(c);
                    }
                    ']' if between && block.list && block.raw.trim().is_empty() => {
                        block.list = false;
                        block.raw.clear();
                        block.stage = Stage::End;
                    }
                    '{' => {
                        *stage = Stage::Json(JsonCall::default());
                        self.in_json(c);
                    }
                    '<' if between && block.marked && !block.list => {
                        block.stage = Stage::End;
                        self.in_end(c);
                    }
                    _ => {
                        block.raw.push(c);
                        self.give_up();
                    }
                }
            }
            Stage::Json(_) => self.in_json(c),
            Stage::Xml(_) => self.in_xml(c),
        }
    }

    fn in_json(&mut self, c: char) {
        let State::Calls(Block { raw, stage, marked, .. }) = &mut self.state else { return };
        let Stage::Json(call) = stage else { return };
        let in_arguments = call.is_in_arguments();
        let given = raw.is_empty();
        if !given {
            raw.push(c);
        }
        let step = match call.step(c, &self.tools) {
            _ if raw.len() > MAX_HELD => Err(Invalid),
            step => step,
        };
        match step {
            Ok(call::Step::Held) => {}
            Ok(call::Step::Begins(name)) => {
                self.begin(name);
                self.arguments(c.encode_utf8(&mut [0; 4]));
            }
            Ok(call::Step::Argument) => self.arguments(c.encode_utf8(&mut [0; 4])),
            Ok(call::Step::Ends) => *stage = Stage::Between,
            Ok(call::Step::Whole(name, arguments)) => {
                *stage = Stage::Between;
                self.begin(name);
                self.arguments(&arguments);
            }
            Err(Invalid) if !given => self.give_up(),
            Err(Invalid) if in_arguments => {
                *stage = Stage::Broken;
                self.in_broken(c);
            }
            Err(Invalid) => {
                *stage = if *marked { Stage::End } else { Stage::Between };
                self.in_calls(c);
            }
        }
    }

    fn in_xml(&mut self, c: char) {
        let State::Calls(Block { raw, stage, .. }) = &mut self.state else { return };
        let Stage::Xml(call) = stage else { return };
        let given = raw.is_empty();
        if !given {
            raw.push(c);
        }
        let mut json = String::new();
        match call.step(c, &self.tools, &mut json) {
            Ok(xml::Step::Goes) => self.arguments(&json),
            Ok(xml::Step::Begins(name)) => {
                self.begin(name);
                self.arguments(&json);
            }
            Ok(xml::Step::Ends) => {
                *stage = Stage::End;
                self.arguments(&json);
            }
            Ok(xml::Step::Ended(rest)) => {
                *stage = Stage::End;
                self.arguments(&json);
                self.again(&rest);
            }
            Err(Invalid) => self.give_up(),
        }
    }

    /// White space and the mark at the end; anything else is text.
    fn in_end(&mut self, c: char) {
        let State::Calls(block) = &mut self.state else { return };
        block.raw.push(c);
        let rest = block.raw.trim_start();
        if block.marked && rest == END_CALL || !block.marked && !rest.is_empty() {
            let rest = if block.marked { String::new() } else { std::mem::take(&mut block.raw) };
            self.state =
                State::Text(Text { first: false, thought: false, after_thought: false, after_call: true });
            self.again(&rest);
        } else if !END_CALL.starts_with(rest) {
            self.give_up();
        }
    }

    /// Arguments that are no JSON, up to the mark.
    fn in_broken(&mut self, c: char) {
        let State::Calls(block) = &mut self.state else { return };
        if !block.marked {
            return self.arguments(c.encode_utf8(&mut [0; 4]));
        }
        self.partial.push(c);
        let mut certain = String::new();
        while !END_CALL.starts_with(&self.partial) {
            certain.push(self.partial.remove(0));
        }
        if self.partial == END_CALL {
            self.partial.clear();
            self.state =
                State::Text(Text { first: false, thought: false, after_thought: false, after_call: true });
        }
        self.arguments(&certain);
    }

    /// What was held back is no call: its first character is text, and the others are read again.
    fn give_up(&mut self) {
        let State::Calls(block) = &mut self.state else { return };
        let raw = std::mem::take(&mut block.raw);
        self.state =
            State::Text(Text { first: false, thought: false, after_thought: false, after_call: false });
        let mut said = std::mem::take(&mut self.space);
        let start = self.calls.map_or("", Calls::start);
        // Another mark may begin in it, or end after it.
        let marks = |rest: &str| rest.starts_with(start) || start.starts_with(rest);
        let again = raw.char_indices().skip(1).map(|(at, _)| at).find(|&at| marks(&raw[at..]));
        let (text, rest) = raw.split_at(again.unwrap_or(raw.len()));
        said.push_str(text);
        self.again(rest);
        let end = said.trim_end().len();
        // White space at the end may precede a mark.
        self.space = said.split_off(end);
        self.text(&said);
    }

    /// Characters that are to be read again.
    fn again(&mut self, text: &str) {
        text.chars().rev().for_each(|c| self.queue.push_front(c));
    }

    /// A call begins.
    fn begin(&mut self, name: String) {
        if let State::Calls(block) = &mut self.state {
            block.raw.clear();
        }
        self.space.clear();
        let index = self.begun;
        self.begun += 1;
        self.parts.push(Part::ToolCall { index, id: format!("{}{index}", self.ids), name });
    }

    fn arguments(&mut self, json: &str) {
        let index = self.begun.saturating_sub(1);
        match self.parts.last_mut() {
            _ if json.is_empty() => {}
            Some(Part::ToolArguments { json: last, .. }) => last.push_str(json),
            _ => self.parts.push(Part::ToolArguments { index, json: json.to_owned() }),
        }
    }
}
