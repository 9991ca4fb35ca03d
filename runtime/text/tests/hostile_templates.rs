//! Templates that never end, ask for gigabytes or nest without end are stopped with a message, and a rendering can be
//! interrupted.
//!
//! Each runs on a thread with less stack than any program has, so that deep nesting would show.

use std::cell::Cell;
use trit_text::template::TemplateInput;
use trit_text::{ChatTemplate, Message, TextError};

fn with_little_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(2 << 20).spawn(work).unwrap().join().unwrap()
}

fn refused(source: &str) -> String {
    let source = source.to_owned();
    with_little_stack(move || {
        let messages = [Message::new("user", "hello")];
        let done = ChatTemplate::new(&source, &[]).and_then(|template| template.render(&messages, true));
        match done {
            Ok(text) => format!("NOT REFUSED: gives {} bytes", text.len()),
            Err(error) => error.to_string(),
        }
    })
}

#[test]
fn templates_that_ask_for_too_much_are_stopped() {
    let cases = [
        // Loops.
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "steps"),
        ("{% for a in range(100000) %}{{ 'x' * 1000000 }}{% endfor %}", "MiB"),
        ("{{ range(100001) }}", "Range too big"),
        (
            "{{ range(99999) | map('string') | map('length') | sum + (range(99999) | map('upper') | join) | length }}",
            "",
        ),
        // Doubling.
        (
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
            "MiB",
        ),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "MiB",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
            "MiB",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
            "",
        ),
        (
            "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
            "",
        ),
        (
            "{% set a = namespace(s=[1]) %}{% set b = namespace(s=[1]) %}{% for i in range(99) %}\
             {% set a.s = [a.s, a.s] %}{% set b.s = [b.s, b.s] %}{% endfor %}{{ a.s == b.s }}",
            "steps",
        ),
        (
            "{% set ns = namespace(s=(1,)) %}{% for i in range(99) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}",
            "key",
        ),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s.replace('x', 'xx') %}{% endfor %}",
            "",
        ),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s | replace('', 'xx') %}{% endfor %}",
            "",
        ),
        (
            "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s | tojson | tojson %}{% endfor %}",
            "",
        ),
        // One call that makes much.
        ("{{ 'x' * 10 ** 12 }}", "MiB"),
        ("{{ [1] * 10 ** 12 }}", "MiB"),
        ("{{ 'x' | center(10 ** 12) }}", "MiB"),
        ("{{ 'x'.ljust(10 ** 12) }}", "MiB"),
        ("{{ 'x'.zfill(10 ** 18) }}", "MiB"),
        ("{{ 'x'.center(10 ** 30) }}", "ssize_t"),
        ("{{ 'x' | indent(10 ** 12) }}", "MiB"),
        ("{{ '\\t'.expandtabs(10 ** 12) }}", "MiB"),
        ("{{ ('x' * 1000000).replace('x', 'x' * 1000000) }}", "MiB"),
        ("{{ ('x' * 1000000).join(['a'] * 1000000) }}", "MiB"),
        ("{{ ['a'] * 1000000 | join('x' * 1000000) }}", ""),
        ("{{ '%999999999d' % 1 }}", "999999999"),
        ("{{ '%.999999999f' % 1 }}", "999999999"),
        ("{{ '%*d' % (10 ** 12, 1) }}", ""),
        ("{{ '{:999999999999}'.format(1) }}", "MiB"),
        ("{{ '{:.999999999f}'.format(1.5) }}", "999999999"),
        ("{{ '{:{w}}'.format('x', w=10 ** 12) }}", "MiB"),
        ("{{ [1] | tojson(indent=10 ** 12) }}", "indentation"),
        ("{{ strftime_now('%999999999d') }}", "999999999"),
        ("{{ 10 ** 10 ** 10 }}", "128 bits"),
        ("{{ [1] | batch(10 ** 12, 'x') | list }}", "MiB"),
        ("{{ [1] | slice(10 ** 12) | list }}", "MiB"),
        ("{{ 9 ** 999999999 }}", "128 bits"),
        // Keeping much.
        (
            "{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = ns.l + ['x' * 10000000 ~ i] %}{% endfor %}",
            "MiB",
        ),
        (
            "{% for i in range(99999) %}{% macro f() %}{% endmacro %}{% for j in range(99) %}{% macro g() %}{% endmacro %}{% endfor %}{% endfor %}",
            "",
        ),
        // Depth.
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "too deep"),
        ("{% macro f(x) %}{% call f(x) %}{{ caller() }}{% endcall %}{% endmacro %}{{ f(1) }}", "too deep"),
        ("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "too deep"),
        (
            "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = [ns.x] %}{% endfor %}",
            "deeper",
        ),
        (
            "{% set ns = namespace(x=1) %}{% for i in range(99999) %}{% set ns.x = {'a': ns.x} %}{% endfor %}",
            "deeper",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(99999) %}{% set ns.x = ns.x | map('abs') %}{% endfor %}",
            "deeper",
        ),
        (
            "{% set ns = namespace(x=[1]) %}{% for i in range(200) %}{% set ns.x = ns.x | map('string') %}{% endfor %}{{ ns.x | list }}",
            "",
        ),
        ("{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}", "too deep"),
        (
            "{% set ns = namespace(l=1) %}{% for i in range(99999) %}{% for x in [ns.l] %}{% set ns.l = loop %}{% endfor %}{% endfor %}",
            "deeper",
        ),
    ];
    let mut wrong = Vec::new();
    for (source, expected) in cases {
        let error = refused(source);
        if !error.contains(expected) || error.starts_with("NOT") {
            wrong.push(format!("{source}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn deep_sources_are_refused() {
    let deep = |open: &str, inside: &str, close: &str, times: usize| {
        format!("{{{{ {}{inside}{} }}}}", open.repeat(times), close.repeat(times))
    };
    let nested = [
        deep("(", "1", ")", 200_000),
        deep("[", "1", "]", 200_000),
        deep("{'a': ", "1", "}", 100_000),
        deep("not ", "1", "", 200_000),
        deep("- ", "1", "", 200_000),
        deep("1 if 1 else ", "1", "", 50_000),
        deep("", "1", " if 1", 50_000),
        deep("", "1", " + 1", 200_000),
        deep("", "1", " ** 1", 100_000),
        deep("", "1", " or 1", 100_000),
        deep("", "x", ".x", 200_000),
        deep("", "x", "[0]", 200_000),
        deep("", "x", "()", 200_000),
        deep("", "x", " | abs", 100_000),
        deep("", "x", " is odd", 100_000),
        deep("f(", "1", ")", 200_000),
        "{% if 1 %}".repeat(50_000),
        "{% for x in y %}".repeat(50_000),
        "{% set x %}".repeat(50_000),
        "{% macro f() %}".repeat(50_000),
        format!("{{% set {}x{} = 1 %}}", "(".repeat(100_000), ")".repeat(100_000)),
    ];
    for source in nested {
        let error = refused(&source);
        assert!(error.contains("nested deeper") || error.contains("chain"), "{error}");
    }
    let error = refused(&" ".repeat((1 << 20) + 1));
    assert!(error.contains("1048577 bytes"), "{error}");
}

#[test]
fn what_people_write_is_nested_less() {
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(40), ")".repeat(40));
    let sum = format!("{{{{ 1{} }}}}", " + 1".repeat(80));
    let joined = format!("{{{{ 1{} }}}}", " ~ 1".repeat(5_000));
    let branches = format!("{{% if false %}}{}{{% endif %}}1", "{% elif false %}x".repeat(5_000));
    let recursion =
        "{% macro f(x) %}{% if x > 0 %}{{ f(x - 1) }}{% else %}1{% endif %}{% endmacro %}{{ f(30) }}";
    for source in [parentheses, sum, joined, branches, recursion.to_owned()] {
        let text =
            with_little_stack(move || ChatTemplate::new(&source, &[]).unwrap().render(&[], true).unwrap());
        assert!(text.starts_with('1') || text == "81", "{text}");
    }
}

#[test]
fn a_long_conversation_is_no_attack() {
    let messages: Vec<Message> = (0..5_000)
        .map(|i| Message::new(["user", "assistant"][i % 2], "Lorem ipsum dolor. ".repeat(200)))
        .collect();
    let source = "{% set ns = namespace(out='') %}{% for m in messages %}{% set text = m.content.split('</think>')[-1] | trim %}\
                  {{ '<|' ~ m.role ~ '|>' + text + '\\n' }}{% endfor %}";
    let text = ChatTemplate::new(source, &[]).unwrap().render(&messages, true).unwrap();
    assert!(text.len() > 5_000 * 3_700);
}

#[test]
fn a_rendering_can_be_interrupted() {
    let template =
        ChatTemplate::new("{% for a in range(99999) %}{% for b in range(99) %}{% endfor %}{% endfor %}", &[]);
    let asked = Cell::new(0);
    let interrupted = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let input = TemplateInput::new(&[], true).unwrap();
    let error = template.unwrap().render_input(&input, &interrupted).unwrap_err();
    assert_eq!(error, TextError::Interrupted);
    assert_eq!(asked.get(), 4);
}
