#!/usr/bin/env bash
# minijinja 3.1.0 renders some chat-template constructs otherwise than Jinja2 3.1.6, without an error.
#
# Hugging Face's templates are written for Jinja2. Engines in Rust and their Python binding promise compatibility "where
# possible"; what matters for a prompt is what differs in silence. Not an exhaustive list: these four were met in templates
# that are published with models.
#
# Seen (Jinja2 | minijinja):
#   none is iterable                          False | True      (so `{% if tools is iterable %}` is taken without tools)
#   a loop over none                          TypeError | nothing
#   'a' < 1                                   TypeError | False
#   a template with CRLF line ends            LF | CRLF
#   1e20                                      1e+20 | 100000000000000000000.0
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet minijinja==3.1.0 jinja2==3.1.6
"$work/venv/bin/python" - <<'PYTHON'
import jinja2.sandbox
import minijinja

theirs = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
other = minijinja.Environment(trim_blocks=True, lstrip_blocks=True)


def result(render):
    try:
        return render()
    except Exception as error:
        return type(error).__name__


expected = {
    "{{ none is iterable }}": ("False", "True"),
    "{% for x in none %}x{% endfor %}": ("TypeError", ""),
    "{{ 'a' < 1 }}": ("TypeError", "False"),
    "a\r\nb": ("a\nb", "a\r\nb"),
    "{{ 1e20 }}": ("1e+20", "100000000000000000000.0"),
}
for source, want in expected.items():
    got = (result(lambda: theirs.from_string(source).render()), result(lambda: other.render_str(source)))
    print(repr(source), got)
    assert got == want, (source, got)
PYTHON
