"""Is what the page makes of Markdown right, the same however it arrives, harmless, and linear in its length?

The renderer's own source is run in the browser, in a scope in which it can be watched.
"""

import json
import os
import random

SOURCE = os.path.join(os.path.dirname(__file__), "../../runtime/server/src/page/markdown.js")

# Markdown, and the elements that it must become.
CASES = [
    ("Hello *there*, **you** ***two***.", "<p>Hello <em>there</em>, <strong>you</strong> <em><strong>two</strong></em>.</p>"),
    ("one\ntwo\n\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("one\r\ntwo\r\n\r\nthree", "<p>one\ntwo</p><p>three</p>"),
    ("**over\ntwo lines**", "<p><strong>over\ntwo lines</strong></p>"),
    ("2*3*4 and snake_case_name and in**side**", "<p>2*3*4 and snake_case_name and in<strong>side</strong></p>"),
    ("*open and **open", "<p>*open and **open</p>"),
    ("* not emphasis * here", "<ul><li><p>not emphasis * here</p></li></ul>"),
    (r"\*no\* \`no\` \[no](https://a.example)", '<p>*no* `no` [no](<a href="https://a.example/">https://a.example</a>)</p>'),
    ("~~gone~~ ~kept~", "<p><del>gone</del> ~kept~</p>"),
    ("`a*b*` ``c ` d`` `open", "<p><code>a*b*</code> <code>c ` d</code> `open</p>"),
    ("# One\n## Two ##\n####### seven\n#tag", "<h3>One</h3><h4>Two</h4><p>####### seven\n#tag</p>"),
    ("a\n\n---\n***\n\nb", "<p>a</p><hr><hr><p>b</p>"),
    ("- a\n- b\n  - c\n  - d\n- e",
     "<ul><li><p>a</p></li><li><p>b</p><ul><li><p>c</p></li><li><p>d</p></li></ul></li><li><p>e</p></li></ul>"),
    ("1. a\n2. b\n\n3. c", "<ol><li><p>a</p></li><li><p>b</p></li><li><p>c</p></li></ol>"),
    ("7) a\n8) b", '<ol start="7"><li><p>a</p></li><li><p>b</p></li></ol>'),
    ("1. a\n  - b\n  - c\n2. d", "<ol><li><p>a</p><ul><li><p>b</p></li><li><p>c</p></li></ul></li><li><p>d</p></li></ol>"),
    ("- a\n\n  more\nlazy\n\nout", "<ul><li><p>a</p><p>more\nlazy</p></li></ul><p>out</p>"),
    ("- a\n+ b", "<ul><li><p>a</p></li></ul><ul><li><p>b</p></li></ul>"),
    ("In\n1984. it\n- x", "<p>In\n1984. it</p><ul><li><p>x</p></li></ul>"),
    ("-\n- b", "<ul><li></li><li><p>b</p></li></ul>"),
    ("> a\n> b\nlazy\n\n> c\n> > d",
     "<blockquote><p>a\nb\nlazy</p></blockquote><blockquote><p>c</p><blockquote><p>d</p></blockquote></blockquote>"),
    ("```js x\nlet a = `<b>`;\n\n  b\n```\nafter", "<code-block js>let a = `<b>`;\n\n  b\n</code-block><p>after</p>"),
    ("~~~\n```\n~~~~\n", "<code-block >```\n</code-block>"),
    ("```\nnever closed", "<code-block >never closed\n</code-block>"),
    ("1. a\n   ```sh\n   ls\n     -l\nout of line\n   ```\n2. b",
     "<ol><li><p>a</p><code-block sh>ls\n  -l\nout of line\n</code-block></li><li><p>b</p></li></ol>"),
    ("```a`b```", "<p><code>a`b</code></p>"),
    ("Head:\n\n| a | b |\n|:--|--:|\n| 1 | `x\\|y` |\n| only |\n\nend",
     "<p>Head:</p><table><tr><th start>a</th><th end>b</th></tr><tr><td start>1</td><td end><code>x|y</code></td></tr>"
     "<tr><td start>only</td><td end></td></tr></table><p>end</p>"),
    ("text\na | b\n--|--\nc | d", "<p>text</p><table><tr><th start>a</th><th start>b</th></tr><tr><td start>c</td><td start>d</td></tr></table>"),
    ("a | b\n--|--|--", "<p>a | b\n--|--|--</p>"),
    ("[a *b*](https://x.example/y) <https://z.example>", '<p><a href="https://x.example/y" x.example>a *b*</a> '
     '<a href="https://z.example/">https://z.example</a></p>'),
    ('see https://en.example/wiki/A_(b)_c_d, or (http://c.example/d).', '<p>see <a href="https://en.example/wiki/A_(b)_c_d">'
     'https://en.example/wiki/A_(b)_c_d</a>, or (<a href="http://c.example/d">http://c.example/d</a>).</p>'),
    ("[bank.example](https://evil.example/?bank.example)",
     '<p><a href="https://evil.example/?bank.example" evil.example>bank.example</a></p>'),
    ("![cat](https://x.example/cat.png)", '<p><a href="https://x.example/cat.png" x.example>cat</a></p>'),
    ("[a](javascript:alert(1)) [b](data:text/html,x) [c](/v1/models) [d](vbscript:x) [e](java\tscript:x) [f](file:///etc/passwd)",
     "<p>[a](javascript:alert(1)) [b](data:text/html,x) [c](/v1/models) [d](vbscript:x) [e](java\tscript:x) [f](file:///etc/passwd)</p>"),
    ("<b>bold</b> <script>alert(1)</script> &lt; &#60;", "<p><b>bold</b> <script>alert(1)</script> &lt; &#60;</p>"),
    ("a\\", "<p>a\\</p>"),
    ("", ""),
    ("\n \n\t\n", ""),
    ("😀 *😀* 𝔸", "<p>😀 <em>😀</em> 𝔸</p>"),
]

HOSTILE = [
    "<img src=x onerror=window.harmed=1>", "<script>window.harmed=1</script>", "<svg onload=window.harmed=1>",
    "[x](javascript:window.harmed=1)", "[x](\x01javascript:window.harmed=1)", "[x](JaVaScRiPt:window.harmed=1)",
    "[x](https://a.example/\" onmouseover=\"window.harmed=1)", "```<img src=x onerror=window.harmed=1>\n<script>\n```",
    "| <b>a</b> | b |\n|--|--|\n| <iframe src=/> | </td></table><script> |\n", "# <style>*{display:none}</style>", "> <form action=/>",
    "`</code><script>window.harmed=1</script>`", "<https://a.example/<script>>", "\u2028<b>\u2029", "]]><!--", "<a href=javascript:x>y</a>",
    "[a](https://user:pass@evil.example/)", "![x](https://a.example/x.png?cookie=1)", "\x00<b>\x00", "![][][](((", "[[[[[[[[]]]]]]]]((((",
]

# Returns functions that the test calls. `work` counts the characters that are looked at again or made into nodes.
HARNESS = """(() => {
  const counted = { work: 0 };
  const Text = class extends window.Text { constructor(text) { counted.work += text.length; super(text); } };
  %s
  const plainly = inline;
  inline = (text) => { counted.work += text.length; return plainly(text); };
  const render = (parts) => {
    const root = document.createElement("div");
    const markdown = new Markdown(root);
    for (const part of parts) markdown.write(part);
    markdown.finish();
    return root;
  };
  // The elements in a short form, without what the page adds for people.
  const brief = (node) => {
    if (node.nodeType === 3) return node.data;
    const inside = () => [...node.childNodes].map(brief).join("");
    const tag = node.tagName.toLowerCase();
    if (node.className === "code") return `<code-block ${node.querySelector("span").textContent}>${node.querySelector("code").textContent}</code-block>`;
    if (node.className === "table" || ["thead", "tbody"].includes(tag)) return inside();
    if (tag === "a") return `<a href="${node.getAttribute("href")}"${node.dataset.host ? " " + node.dataset.host : ""}>${inside()}</a>`;
    if (tag === "hr") return "<hr>";
    if (tag === "span") return inside();
    const more = tag === "ol" && node.hasAttribute("start") ? ` start="${node.start}"` : node.style.textAlign ? ` ${node.style.textAlign}` : "";
    return `<${tag}${more}>${inside()}</${tag}>`;
  };
  const allowed = {
    A: ["href", "target", "rel", "data-host"], BUTTON: ["type", "data-copy", "aria-label"], TH: ["scope", "style"], TD: ["style"], OL: ["start"],
    DIV: ["class", "tabindex", "role", "aria-label"], PRE: ["tabindex"],
  };
  for (const tag of "P SPAN EM STRONG DEL CODE H3 H4 H5 H6 UL LI BLOCKQUOTE HR TABLE THEAD TBODY TR".split(" ")) allowed[tag] = [];
  return {
    brief: (parts) => [...render(parts).childNodes].map(brief).join(""),
    whole: (parts) => new XMLSerializer().serializeToString(render(parts)),
    // What stands in the nodes that may not.
    foreign: (parts) => [...render(parts).querySelectorAll("*")].flatMap((node) => {
      const wrong = node.getAttributeNames().filter((name) => !allowed[node.tagName]?.includes(name));
      if (!allowed[node.tagName]) wrong.push(node.tagName);
      if (node.tagName === "A" && !/^https?:$/.test(node.protocol)) wrong.push(node.href);
      if (node.tagName === "A" && (node.rel !== "noopener noreferrer nofollow" || node.target !== "_blank")) wrong.push(node.rel);
      if (node.hasAttribute("style") && !/^text-align: (start|end|center);$/.test(node.getAttribute("style"))) wrong.push(node.getAttribute("style"));
      return wrong;
    }),
    work: (text, size) => {
      counted.work = 0;
      const parts = [];
      for (let at = 0; at < text.length; at += size) parts.push(text.slice(at, at + size));
      const root = render(parts);
      return [counted.work, root.textContent.length];
    },
  };
})()"""


def begin(page):
    with open(SOURCE, encoding="utf-8") as file:
        page.js(f"window.renderer = {HARNESS % file.read()}; true")


def call(page, name, *args):
    return page.js(f"renderer.{name}({', '.join(json.dumps(arg) for arg in args)})")


def cases_are_right(page):
    wrong = [(text, found, wanted) for text, wanted in CASES if (found := call(page, "brief", [text])) != wanted]
    assert not wrong, "\n".join(f"{text!r}\n  gives  {found!r}\n  wanted {wanted!r}" for text, found, wanted in wrong)


def pieces(rng, text, most):
    parts = []
    while text:
        size = rng.randint(1, most)
        parts.append(text[:size])
        text = text[size:]
    return parts


def long_texts(rng):
    """Texts that are cut into pieces: long lines, with marks and characters of two halves at the cuts."""
    words = ["word", "*emphasis*", "**strong", "`code`", "[link](https://a.example/b)", "😀", "|", "\\", "a" * 50, "_", "https://c.example"]
    yield " ".join(rng.choice(words) for _ in range(2500))
    yield "😀" * 5000
    yield "# " + "x" * 9000 + "\n\nend"
    yield "- item\n  " + "y " * 5000 + "\n- next\n\n```\n" + "z" * 9000 + "\n```\nend"
    yield "\n".join("a line of a *paragraph* that is long" for _ in range(400))
    yield "> " + "q " * 4000 + "\nlazy\n> more"


def how_it_arrives_changes_nothing(page):
    rng = random.Random(1)
    texts = [text for text, _ in CASES] + HOSTILE
    for _ in range(60):
        texts.append(rng.choice(["\n", "\n\n", " "]).join(rng.choice(CASES)[0] for _ in range(rng.randint(2, 6))))
    for _ in range(60):
        texts.append("".join(rng.choice("*_`~[]()<>|\\#-+>1. \nab😀:!\t") for _ in range(rng.randint(5, 120))))
    for number, text in enumerate(texts):
        wanted = call(page, "whole", [text])
        for most in (1, 4, 30):
            parts = pieces(rng, text, most)
            assert call(page, "whole", parts) == wanted, f"text {number} in parts {parts!r}"
    for text in long_texts(rng):
        wanted = call(page, "whole", [text])
        for most in (700, 5000):
            parts = pieces(rng, text, most)
            assert call(page, "whole", parts) == wanted, f"a long text in parts of up to {most}: {text[:60]!r}"


def nothing_hostile_becomes_markup(page):
    rng = random.Random(2)
    for number in range(300):
        text = rng.choice(["", "\n", " ", "*", "> ", "- "]).join(rng.choice(HOSTILE) for _ in range(1 if number < 40 else 4))
        if number < len(HOSTILE):
            text = HOSTILE[number]
        wrong = call(page, "foreign", pieces(rng, text, 40))
        assert not wrong, f"{text!r} gives {wrong}"
    assert page.js("window.harmed === undefined")


def work_is_linear(page):
    """Twice the text takes twice the work, counted in characters and not in seconds."""
    shapes = {
        "one line": "word *and* word " * 50,
        "a line without spaces": "x" * 800,
        "short lines": "a short line of text\n" * 40,
        "paragraphs": "a paragraph with **emphasis** in it.\n\n" * 20,
        "code": None,
        "a list": "- an item of a list\n" * 40,
        "lists in lists": "- a\n  - b\n    - c\n" * 40,
        "a table": None,
        "openings": "*a [b `c " * 90,
        "quotations": "> > quoted\n" * 70,
    }
    begins = {"code": "```\n", "a table": "|a|b|\n|--|--|\n"}
    bodies = {"code": "    let a = 1; // and more\n" * 30, "a table": "| one | two and more |\n" * 35}
    for name, unit in shapes.items():
        unit = unit or bodies[name]
        begin_with = begins.get(name, "")
        half, whole = (call(page, "work", begin_with + unit * times, 25) for times in (20, 40))
        assert whole[1] > 0.1 * len(unit) * 40, f"{name}: only {whole[1]} characters are shown"
        assert whole[0] < 2.2 * half[0], f"{name}: {half[0]} characters of work for a half, {whole[0]} for the whole"
        # No piece of a text, of about 2000 characters, is looked at more often than it grows, by 25 characters.
        assert whole[0] < 200 * len(unit) * 40, f"{name}: {whole[0]} characters of work"
