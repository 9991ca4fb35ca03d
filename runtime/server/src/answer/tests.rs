//! Recorded answers in each form, cut everywhere.

use super::form::{Arguments, Calls, Form};
use super::{Part, Splitter};
use crate::chat::Messages;
use serde_json::json;

fn form(calls: Calls, thoughts: bool) -> Form {
    Form { thoughts, calls, tells_tools: true, earlier: Some(Arguments::Object), special: Vec::new() }
}

fn messages() -> Messages {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "where": {"type": "object"}, "exact": {"type": "boolean"}}});
    let tool = |name: &str, parameters| json!({"type": "function", "function": {"name": name, "parameters": parameters}});
    let tools = vec![tool("weather", weather), tool("noop", json!({"type": "object", "properties": {}}))];
    Messages { tools, ..Messages::default() }
}

/// Parts with what belongs together joined: reasoning, text, calls with names and arguments.
fn joined(parts: Vec<Part>) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    for part in parts {
        let (kind, text) = match part {
            Part::ToolCall { index, name, id } => {
                assert!(id.ends_with(&index.to_string()));
                all.push((format!("call {index} {name}"), String::new()));
                continue;
            }
            Part::ToolArguments { index, json } => {
                let (kind, arguments) = all.last_mut().expect("a call begins before its arguments");
                assert!(kind.starts_with(&format!("call {index} ")), "{kind}: {json}");
                arguments.push_str(&json);
                continue;
            }
            Part::Reasoning(text) => ("reasoning", text),
            Part::Text(text) => ("text", text),
        };
        assert!(!text.is_empty());
        match all.last_mut() {
            Some((last, whole)) if last == kind => whole.push_str(&text),
            _ => all.push((kind.to_owned(), text)),
        }
    }
    all
}

fn split(mut splitter: Splitter, pieces: &[&str]) -> Vec<(String, String)> {
    let mut parts: Vec<Part> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    parts.extend(splitter.finish());
    assert!(splitter.finish().is_empty() && splitter.push("").is_empty());
    joined(parts)
}

/// What a text gives, however it is cut.
fn parts(form: &Form, prompt: &str, text: &str) -> Vec<(String, String)> {
    let messages = messages();
    let new = || form.splitter(&messages, prompt);
    let whole = split(new(), &[text]);
    let each: Vec<&str> = text.split("").filter(|c| !c.is_empty()).collect();
    assert_eq!(split(new(), &each), whole, "{text:?} character by character");
    for (at, _) in text.char_indices() {
        assert_eq!(split(new(), &[&text[..at], &text[at..]]), whole, "{text:?} cut at {at}");
    }
    whole
}

fn expect(form: &Form, prompt: &str, text: &str, expected: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        expected.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    assert_eq!(parts(form, prompt, text), expected, "{text:?}");
}

#[test]
fn thoughts_are_told_from_the_answer() {
    let form = form(Calls::Marked, true);
    let both: &[(&str, &str)] = &[("reasoning", "Hm,\n so?"), ("text", "It rains.\n")];
    expect(&form, "", "<think>\nHm,\n so?\n</think>\n\nIt rains.\n", both);
    expect(&form, "<think>\n", "\nHm,\n so?\n</think>\n\nIt rains.\n", both);
    // No thought, an empty one, one that breaks off, and text about them.
    expect(&form, "", "\n It rains.", &[("text", "\n It rains.")]);
    expect(&form, "", "<think>\n\n</think>\n\nIt rains.", &[("text", "It rains.")]);
    expect(&form, "<think>\n", "Hm </thi", &[("reasoning", "Hm </thi")]);
    expect(&form, "", "Say <think> or </think>.", &[("text", "Say <think> or </think>.")]);
    expect(&form, "", "<thin", &[("text", "<thin")]);
    expect(
        &form,
        "<think>",
        "a <b> </thought></think>c",
        &[("reasoning", "a <b> </thought>"), ("text", "c")],
    );
    expect(&form, "<think>", "<tool_call></think>", &[("reasoning", "<tool_call>")]);
}

#[test]
fn marked_calls() {
    let form = form(Calls::Marked, true);
    let one = r#"{"city": "Paris", "days": 2}"#;
    expect(
        &form,
        "",
        &format!(
            "<think>\nUse it.\n</think>\n\nLet me see.\n\n<tool_call>\n{{\"name\": \"weather\", \"arguments\": {one}}}\n</tool_call>"
        ),
        &[("reasoning", "Use it."), ("text", "Let me see."), ("call 0 weather", one)],
    );
    expect(
        &form,
        "",
        &format!(
            "<tool_call>\n{{\"name\": \"weather\", \"arguments\": {one}}}\n</tool_call>\n<tool_call>\n\
             {{\"arguments\": {{}}, \"name\": \"noop\"}}\n</tool_call>\n"
        ),
        &[("call 0 weather", one), ("call 1 noop", "{}")],
    );
    // Falcon 3's list, and a text that goes on.
    expect(
        &form,
        "",
        &format!(
            "<tool_call>\n[\n {{\"name\": \"weather\", \"arguments\": {one}}},\n {{\"type\": \"function\", \"function\": \
             {{\"name\": \"noop\", \"arguments\": {{}}}}}}\n]\n</tool_call> Done."
        ),
        &[("call 0 weather", one), ("call 1 noop", "{}"), ("text", " Done.")],
    );
    // What breaks off is as far as it came; what ends without a mark has ended.
    expect(
        &form,
        "",
        r#"<tool_call>{"name": "weather", "arguments": {"city": "Pa"#,
        &[("call 0 weather", r#"{"city": "Pa"#)],
    );
    expect(&form, "", r#"<tool_call>{"name": "noop", "arguments": {}}"#, &[("call 0 noop", "{}")]);
    expect(&form, "", "<tool_call>{\"name\": \"noop\", \"arguments\": {}}\n</tool", &[("call 0 noop", "{}")]);
    // The last brace is often forgotten.
    expect(
        &form,
        "",
        "<tool_call>{\"name\": \"noop\", \"arguments\": {}\n</tool_call>",
        &[("call 0 noop", "{}")],
    );
}

#[test]
fn what_is_no_call_stays_text() {
    let form = form(Calls::Marked, false);
    for text in [
        "Write <tool_call> before it.",
        "<tool_call>",
        "<tool_call>\n",
        "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>{\"name\": \"noop\"}</tool_call>",
        "<tool_call>{\"name\": \"noop\", \"arguments\": [1]}</tool_call>",
        "<tool_call>[]</tool_call>",
        "<tool_call>[1]</tool_call>",
        "<tool_call>{\"name\": \"wea",
        "a  <tool_cal",
        "a \n <x> ",
        "<tool_call>{'name': 'noop'}</tool_call>",
    ] {
        expect(&form, "", text, &[("text", text)]);
    }
    // A call may follow what looked like one.
    expect(
        &form,
        "",
        "<tool_call> <tool_call>{\"name\": \"noop\", \"arguments\": {}}</tool_call>",
        &[("text", "<tool_call>"), ("call 0 noop", "{}")],
    );
    expect(
        &form,
        "",
        "<tool_call>{\"arguments\": {\"a\": \"<tool_call>{\"name\": \"noop\", \"arguments\": {}}</tool_call>",
        &[("text", "<tool_call>{\"arguments\": {\"a\": \""), ("call 0 noop", "{}")],
    );
    // Arguments that turn out to be no JSON are given as they are.
    expect(
        &form,
        "",
        "<tool_call>{\"name\": \"weather\", \"arguments\": {\"city\": Paris}}</tool_call>ok",
        &[("call 0 weather", "{\"city\": Paris}}"), ("text", "ok")],
    );
}

#[test]
fn without_tools_nothing_is_a_call_and_nothing_is_held_back() {
    let form = form(Calls::Marked, false);
    let mut splitter = form.splitter(&Messages::default(), "");
    let text = "<tool_call>\n{\"name\": \"noop\"";
    assert_eq!(splitter.push(text), [Part::Text(text.to_owned())]);
    assert_eq!(splitter.push(" \n"), [Part::Text(" \n".to_owned())]);
    let mut plain = Splitter::plain();
    assert_eq!(plain.push("<think>"), [Part::Text("<think>".to_owned())]);
    assert_eq!(plain.push(" \n"), [Part::Text(" \n".to_owned())]);
    assert!(plain.push_special("<think>").is_empty() && plain.finish().is_empty());
}

#[test]
fn bare_calls() {
    let form = form(Calls::Bare, false);
    let one = r#"{"city": "Paris"}"#;
    let call = format!("{{\"name\": \"weather\", \"parameters\": {one}}}");
    let expected: &[(&str, &str)] = &[("call 0 weather", one)];
    expect(&form, "", &call, expected);
    expect(&form, "", &format!("\n\n{call}\n"), expected);
    expect(&form, "", &format!("<|python_tag|>{call}"), expected);
    expect(&form, "", &format!("{{\"type\": \"function\", {}", &call[1..]), expected);
    expect(&form, "", &format!("[{call}]"), expected);
    expect(
        &form,
        "",
        &format!("{call}; {{\"name\": \"noop\", \"parameters\": {{}}}}"),
        &[("call 0 weather", one), ("call 1 noop", "{}")],
    );
    for text in [
        "{\"title\": \"A\"}",
        "{\"name\": \"Anna\"}",
        "{\"name\": \"noop\"}",
        "[1, 2]",
        "[\n",
        "{",
        "Here: {\"name\": \"noop\", \"parameters\": {}}",
        "<|python_tag|>print(1)",
    ] {
        expect(&form, "", text, &[("text", text)]);
    }
    expect(&form, "", &format!("{call} Done."), &[("call 0 weather", one), ("text", " Done.")]);
    // The token is special, so that the detokenizer gives no text for it.
    let mut splitter = form.splitter(&messages(), "");
    let mut parts = splitter.push("A: ");
    parts.extend(splitter.push_special("<|python_tag|>"));
    parts.extend(splitter.push_special("<|eot_id|>"));
    parts.extend(splitter.push(&call));
    parts.extend(splitter.finish());
    assert_eq!(
        joined(parts),
        [("text".to_owned(), "A:".to_owned()), ("call 0 weather".to_owned(), one.to_owned())]
    );
}

#[test]
fn calls_in_tags() {
    let form = form(Calls::Xml, true);
    let call = "<tool_call>\n<function=weather>\n<parameter=city>\nSaint \"Denis\"\n\n<b>\n</parameter>\n<parameter=days>\n3\n</parameter>\n\
                <parameter=where>\n{\"lat\": 1}\n</parameter>\n<parameter=exact>\nTrue\n</parameter>\n</function>\n</tool_call>";
    let arguments = r#"{"city": "Saint \"Denis\"\n\n<b>", "days": 3, "where": {"lat": 1}, "exact": true}"#;
    expect(
        &form,
        "<think>",
        &format!("Hm.\n</think>\n\n{call}"),
        &[("reasoning", "Hm."), ("call 0 weather", arguments)],
    );
    expect(
        &form,
        "",
        &format!("Yes.\n\n{call}\n<tool_call>\n<function=noop>\n</function>\n</tool_call>"),
        &[("text", "Yes."), ("call 0 weather", arguments), ("call 1 noop", "{}")],
    );
    for text in [
        "<tool_call>\n<function=other>\n</function></tool_call>",
        "<tool_call>\n{\"name\": \"noop\", \"arguments\": {}}\n</tool_call>",
        "<tool_call><function=noo",
        "<tool_call><function=noop",
    ] {
        expect(&form, "", text, &[("text", text)]);
    }
    let open = "<tool_call>\n<function=weather>\n<parameter=";
    expect(&form, "", &format!("{open}city>\nPar</par"), &[("call 0 weather", "{\"city\": \"Par</par")]);
    expect(&form, "", &format!("{open}days>\n12"), &[("call 0 weather", "{\"days\": 12")]);
    expect(
        &form,
        "",
        &format!("{open}days>7</parameter></tool_call>"),
        &[("call 0 weather", "{\"days\": 7}")],
    );
    expect(
        &form,
        "",
        &format!("{open}days>7</parameter>So:"),
        &[("call 0 weather", "{\"days\": 7}"), ("text", "So:")],
    );
}

#[test]
fn text_is_given_out_as_soon_as_it_is_certain() {
    let form = form(Calls::Marked, false);
    let mut splitter = form.splitter(&messages(), "");
    let text = |text: &str| vec![Part::Text(text.to_owned())];
    assert_eq!(splitter.push("One"), text("One"));
    assert_eq!(splitter.push(" two <"), text(" two"));
    assert_eq!(splitter.push("b"), text(" <b"));
    assert_eq!(splitter.push(" <tool_call>{\"name\": \"weather\", \"arguments\": "), []);
    let parts = splitter.push("{\"ci");
    assert_eq!(parts[1..], [Part::ToolArguments { index: 0, json: "{\"ci".to_owned() }]);
    assert_eq!(splitter.push("ty"), [Part::ToolArguments { index: 0, json: "ty".to_owned() }]);
}

/// Texts of everything that means something, in any order: however they are cut, the same comes out, and no letter is lost.
#[test]
fn any_text_cut_anywhere_gives_the_same() {
    let fragments = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "\n",
        " ",
        "{",
        "}",
        "[",
        "]",
        ",",
        ";",
        ":",
        "\"",
        "\\",
        "name",
        "\"name\": \"weather\"",
        "\"arguments\": {",
        "\"parameters\": ",
        "noop",
        "<function=weather>",
        "<function=",
        "</function>",
        "<parameter=city>",
        "<parameter=days>",
        "</parameter>",
        "x",
        "é",
        "7",
        "<|python_tag|>",
        "<",
        ">",
        "null",
        "{\"name\": \"noop\", \"arguments\": {}}",
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"",
    ];
    let mut random = 7u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let messages = messages();
    for round in 0..6000 {
        let calls = [Calls::Marked, Calls::Bare, Calls::Xml][round % 3];
        let form = form(calls, round % 2 == 0);
        let prompt = if round % 5 == 0 { "<think>\n" } else { "" };
        let text: String = (0..1 + next(14)).map(|_| fragments[next(fragments.len())]).collect();
        let whole = split(form.splitter(&messages, prompt), &[&text]);
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let at = rest.char_indices().map(|(at, c)| at + c.len_utf8()).nth(next(4)).unwrap_or(rest.len());
            let (piece, after) = rest.split_at(at);
            pieces.push(piece);
            rest = after;
        }
        assert_eq!(split(form.splitter(&messages, prompt), &pieces), whole, "{pieces:?}");
        // What is no call and no thought is all there.
        if whole.iter().all(|(kind, _)| kind == "text") && !text.contains("think>") {
            let said: String = whole.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!(said, text);
        }
    }
}
