//! Small templates that write calls as the known ones do.

use super::*;

fn find(source: &str) -> Form {
    let template = ChatTemplate::new(source, &[]).unwrap();
    Form::find(&template, source, &|token| token == PYTHON)
}

/// What templates begin and end with. CALLS stands for how they write earlier calls, TOOLS for how they tell of tools.
fn template(tools: &str, calls: &str, prompt: &str) -> String {
    format!(
        "{{% if tools %}}{tools}{{% endif %}}{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}\
         {{% if m.tool_calls %}}{calls}{{% endif %}}{{% endfor %}}{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )
}

const TOOLS: &str = "{% for t in tools %}{{ t | tojson }}{% endfor %}";

#[test]
fn the_form_shows_in_what_a_template_does_with_a_call() {
    let each =
        |text: &str| format!("{{% for c in m.tool_calls %}}{{% set f = c.function %}}{text}{{% endfor %}}");
    let qwen = each(
        "<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}\n</tool_call>",
    );
    let llama = each("{\"name\": \"{{ f.name }}\", \"parameters\": {{ f.arguments | tojson }}}");
    let tags = each(
        "<tool_call>\n<function={{ f.name }}>{% for k, v in f.arguments | items %}<parameter={{ k }}>\n{{ v }}\n\
         </parameter>{% endfor %}</function>\n</tool_call>",
    );
    for (calls, expected) in [(qwen, Calls::Marked), (llama, Calls::Bare), (tags, Calls::Xml)] {
        let form = find(&template(TOOLS, &calls, "<|assistant|>"));
        let wanted = Form {
            thoughts: false,
            calls: expected,
            tells_tools: true,
            earlier: Some(Arguments::Object),
            special: vec![PYTHON],
        };
        assert_eq!(form, wanted, "{calls}");
    }
}

#[test]
fn arguments_are_given_as_a_template_wants_them() {
    let written = |arguments: &str| {
        let calls = format!("{{% for c in m.tool_calls %}}<tool_call>{arguments}</tool_call>{{% endfor %}}");
        find(&template(TOOLS, &calls, "")).earlier
    };
    assert_eq!(written("{{ c.function | tojson }}"), Some(Arguments::Object));
    // An object cannot be added to a text, and would be written as Python does.
    assert_eq!(written("{{ c.function.name + c.function.arguments }}"), Some(Arguments::Text));
    assert_eq!(written("{{ c.function.arguments }}"), Some(Arguments::Text));
    assert_eq!(written("something"), None);
}

#[test]
fn a_template_may_say_more_than_it_does() {
    // Falcon 3 writes calls only where there are tools, and BitNet knows neither.
    let falcon = "{% if tools %}<tools>{{ tools | tojson }}</tools> answer in <tool_call></tool_call>{% for m in messages %}\
                  {{ m.content }}{% if m.tool_calls %}<tool_call>{{ m.tool_calls | tojson }}</tool_call>{% endif %}{% endfor %}\
                  {% else %}{% for m in messages %}{{ m.content }}{% endfor %}{% endif %}";
    let form = find(falcon);
    assert_eq!((form.calls, form.tells_tools, form.earlier), (Calls::Marked, true, Some(Arguments::Object)));
    let bitnet = "{% for m in messages %}{{ m.role | capitalize + ': ' + m.content | trim + '<|eot_id|>' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";
    let form = find(bitnet);
    assert_eq!((form.calls, form.tells_tools, form.earlier), (Calls::Marked, false, None));
    assert!(!form.thoughts);
}

#[test]
fn a_prompt_may_open_a_thought() {
    let thinks = find(&template(TOOLS, "", "<|assistant|><think>\n{{ '</think>' if quick }}"));
    assert!(thinks.opens_thought("<|user|>Hi<|assistant|><think>\n"));
    assert!(!thinks.opens_thought("<|assistant|><think>\n\n</think>\n\n"));
    assert!(!thinks.opens_thought("What does <think> mean?<|assistant|>"));
    assert!(!find("{{ messages[0].content }}").opens_thought("<think>\n"));
}
