//! Texts that fit a grammar, byte by byte, and are read as the calls that the grammar demands.

use super::*;
use crate::answer::Part;
use crate::answer::form::Arguments;
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities};
use llguidance::{Matcher, ParserFactory};

fn form(calls: Calls, thoughts: bool) -> Form {
    Form { thoughts, calls, tells_tools: true, earlier: Some(Arguments::Object), special: Vec::new() }
}

fn messages(tool_choice: ToolChoice) -> Messages {
    let weather = json!({"type": "object", "required": ["city"], "additionalProperties": false, "properties": {
        "city": {"type": "string"}, "unit": {"enum": ["C", "F"]}, "where": {"$ref": "#/$defs/Place"}},
        "$defs": {"Place": {"type": "object", "properties": {"lat": {"type": "number"}}, "additionalProperties": false}}});
    let tool = |function: Value| json!({"type": "function", "function": function});
    let tools = vec![tool(json!({"name": "weather", "parameters": weather})), tool(json!({"name": "noop"}))];
    Messages { tools, tool_choice, parallel_tool_calls: true, ..Messages::default() }
}

/// Whether a text is one of the grammar, byte by byte.
fn fits(grammar: &str, text: &str) -> bool {
    let factory =
        ParserFactory::new(&ApproximateTokEnv::single_byte_env(), InferenceCapabilities::default(), &[]);
    let mut matcher =
        Matcher::new(factory.unwrap().create_parser(TopLevelGrammar::from_lark(grammar.to_owned())));
    assert!(!matcher.is_error(), "{:?}:\n{grammar}", matcher.get_error());
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    matcher.try_consume_tokens(&tokens).unwrap() == tokens.len() && matcher.is_accepting().unwrap()
}

/// The tools that are called in a text.
fn called(form: &Form, messages: &Messages, prompt: &str, text: &str) -> Vec<String> {
    let mut splitter = form.splitter(messages, prompt);
    let parts = [splitter.push(text), splitter.finish()].concat();
    parts
        .into_iter()
        .filter_map(|part| if let Part::ToolCall { name, .. } = part { Some(name) } else { None })
        .collect()
}

#[test]
fn calls_of_every_form_are_what_the_grammar_demands() {
    let json =
        |name: &str, key: &str, arguments: &str| format!("{{\"name\": \"{name}\", \"{key}\": {arguments}}}");
    let marked = |call: &str| format!("<tool_call>\n{call}\n</tool_call>");
    let weather = r#"{"city": "Paris", "where": {"lat": 1.5}}"#;
    let tags = "<function=weather>\n<parameter=city>\nSaint <Denis>\n</parameter>\n<parameter=unit>\nF\n</parameter>\n\
                <parameter=where>\n{\"lat\": 1}\n</parameter>\n</function>";
    for (calls, one, other, wrong) in [
        (
            Calls::Marked,
            marked(&json("weather", "arguments", weather)),
            marked(&json("noop", "arguments", "{}")),
            marked(&json("weather", "arguments", r#"{"city": 5}"#)),
        ),
        (
            Calls::Bare,
            json("weather", "parameters", weather),
            json("noop", "parameters", "{}"),
            json("weather", "parameters", "{}"),
        ),
        (
            Calls::Xml,
            marked(tags),
            marked("<function=noop>\n</function>"),
            marked("<function=weather>\n<parameter=unit>\nK\n</parameter>\n</function>"),
        ),
    ] {
        let form = form(calls, false);
        let messages = messages(ToolChoice::Required);
        let grammar = form.grammar(&messages, "", &Format::Text).unwrap();
        for (text, name) in [(&one, "weather"), (&other, "noop")] {
            assert!(fits(&grammar, text), "{text}\n{grammar}");
            assert_eq!(called(&form, &messages, "", text), [name], "{text}");
        }
        assert!(!fits(&grammar, &wrong), "{wrong}");
        assert!(!fits(&grammar, "Hello.") && !fits(&grammar, ""));
        let both = format!("{one}\n{other}");
        let several = calls != Calls::Bare;
        assert_eq!(fits(&grammar, &both), several, "{both}");
        let single = Messages { parallel_tool_calls: false, ..messages };
        assert!(!fits(&form.grammar(&single, "", &Format::Text).unwrap(), &both));
        let named = self::messages(ToolChoice::Function("noop".into()));
        let grammar = form.grammar(&named, "", &Format::Text).unwrap();
        assert!(fits(&grammar, &other) && !fits(&grammar, &one));
    }
}

#[test]
fn a_model_may_think_before_it_does_what_it_must() {
    let form = form(Calls::Marked, true);
    let must = messages(ToolChoice::Function("noop".into()));
    let call = "<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>";
    let opened = "<|assistant|><think>\n";
    let grammar = form.grammar(&must, opened, &Format::Text).unwrap();
    let thought = format!("Hm.\n{{}}\n</think>\n\n{call}");
    assert!(fits(&grammar, &thought) && !fits(&grammar, call));
    assert_eq!(called(&form, &must, opened, &thought), ["noop"]);
    let grammar = form.grammar(&must, "", &Format::Text).unwrap();
    assert!(
        fits(&grammar, call) && fits(&grammar, &format!("<think>{thought}")) && !fits(&grammar, &thought)
    );
    // A format holds for the answer, not for thoughts.
    let schema = Format::JsonSchema(json!({"type": "integer"}));
    let none = Messages::default();
    let grammar = form.grammar(&none, opened, &schema).unwrap();
    assert!(fits(&grammar, "Hm.</think>\n\n5") && !fits(&grammar, "5") && !fits(&grammar, "Hm.</think>a"));
    let grammar = form.grammar(&none, opened, &Format::Regex("a/b+".into())).unwrap();
    assert!(fits(&grammar, "Hm.</think>a/bb") && !fits(&grammar, "Hm.</think>a"));
    // Where there are tools, it may call one instead.
    let grammar = form.grammar(&messages(ToolChoice::Auto), "", &schema).unwrap();
    assert!(fits(&grammar, "5") && fits(&grammar, call) && !fits(&grammar, "a"));
}

#[test]
fn where_a_format_says_all_there_is_no_grammar() {
    let (thinks, plain) = (form(Calls::Marked, true), form(Calls::Marked, false));
    let schema = Format::JsonSchema(json!({"type": "integer"}));
    assert_eq!(plain.grammar(&Messages::default(), "", &schema), None);
    assert_eq!(plain.grammar(&messages(ToolChoice::Never), "", &schema), None);
    assert_eq!(thinks.grammar(&messages(ToolChoice::Auto), "", &Format::Text), None);
    assert_eq!(thinks.grammar(&Messages::default(), "", &Format::Text), None);
}

#[test]
fn marks_that_are_special_tokens_are_named() {
    let special = Form { special: vec![START_CALL, END_CALL, END_THOUGHT], ..form(Calls::Marked, true) };
    let grammar = special.grammar(&messages(ToolChoice::Required), "", &Format::Text).unwrap();
    assert!(grammar.contains("marked: <tool_call> \"\\n\" call \"\\n\" </tool_call>"), "{grammar}");
    assert!(grammar.contains("thought: /(?s:.*)/ </think> /\\n*/"), "{grammar}");
}
