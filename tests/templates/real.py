"""Renders the chat templates that packages on PyPI ship, through transformers, and writes JSON.

    python tests/templates/real.py WHEELS REAL.json

WHEELS is a folder with the wheels of trl, axolotl and unsloth. Nothing of them is imported: templates are their .jinja
files, and the strings in their .py files that are templates. Needs transformers 5.24.0 and jinja2 3.1.6, no torch.
"""

import ast
import copy
import json
import sys
import zipfile
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import _normalize_chat_messages, render_jinja_template

VERSIONS = {"transformers": "5.24.0", "jinja2": "3.1.6"}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Gets the <current> weather.\nFor a \"city\".",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city's name"},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"], "default": "celsius"},
                    "days": {"type": ["integer", "null"], "minimum": 1, "maximum": 1e3},
                    "where": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
            "return": {"type": "string", "description": "A report — été"},
        },
    },
    {"type": "function", "function": {"name": "noop", "description": "", "parameters": {"type": "object", "properties": {}}}},
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


CALL = {"id": "call12345", "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "where": {"lat": 47.4}, "tags": []}}}

CONVERSATIONS = [
    {"name": "a question", "messages": [user(" Hi, who are you?\n")]},
    {"name": "a conversation without a prompt to answer", "add_generation_prompt": False,
     "messages": [user("Hi"), assistant("Hello! <b>\"'"), user("Bye"), assistant("Bye.")]},
    {"name": "a system message", "messages": [{"role": "system", "content": "Be brief.\n"}, user("Hi"), assistant(" Yes? "), user("One\r\ntwo")]},
    {"name": "tools", "tools": TOOLS, "messages": [{"role": "system", "content": "Use tools."}, user("Weather?")]},
    {"name": "a tool that was called", "tools": TOOLS,
     "messages": [user("Weather in Zürich?"), assistant(None, tool_calls=[CALL]),
                  {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "{\"t\": 21.5}"},
                  assistant("It is 21.5 °C."), user("Thanks")]},
    {"name": "reasoning", "variables": {"enable_thinking": True},
     "messages": [user("2+2?"), assistant("<think>\nIt is 4.\n</think>\n\n4"), user("3+3?"),
                  assistant("6", reasoning_content="Three and three."), user("4+4?")]},
    {"name": "parts of content, no thinking", "variables": {"enable_thinking": False, "date_string": "26 Jul 2024"},
     "messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image"}, {"type": "text", "text": " Tell."}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}, {"role": "user", "content": [{"type": "text", "text": "Sure?"}]}]},
    {"name": "documents and roles out of turn", "documents": [{"title": "A", "text": "Alpha."}, {"title": "B", "text": "Beta."}],
     "messages": [user("One"), user("Two"), assistant("Three"), {"role": "developer", "content": "Four"}, user("Five")]},
]


def folded(node):
    """The string that an expression of strings is, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = folded(node.left), folded(node.right)
        return None if left is None or right is None else left + right
    return None


def strings(source):
    """Strings of a Python file, the longest that constants add up to."""
    found = []

    def visit(node):
        text = folded(node)
        if text is not None:
            found.append((node.lineno, text))
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(source))
    return found


def templates(wheels):
    """Names and sources."""
    known = set()
    for wheel in sorted(Path(wheels).glob("*.whl")):
        package = zipfile.ZipFile(wheel)
        for name in sorted(package.namelist()):
            if name.endswith((".jinja", ".jinja2")):
                found = [(name, package.read(name).decode("utf-8"))]
            elif name.endswith(".py"):
                found = [(f"{name}:{line}", text) for line, text in strings(package.read(name))
                         if "{%" in text and "messages" in text]
            else:
                continue
            for where, source in found:
                # A file counts even where another one says the same.
                if source not in known or name.endswith((".jinja", ".jinja2")):
                    known.add(source)
                    yield f"{wheel.name.split('-')[0]}: {where}", source


def rendered(source, conversation):
    conversation = copy.deepcopy(conversation)
    try:
        texts, _ = render_jinja_template(
            conversations=[_normalize_chat_messages(conversation["messages"])],
            tools=conversation.get("tools"),
            documents=conversation.get("documents"),
            chat_template=source,
            add_generation_prompt=conversation.get("add_generation_prompt", True),
            **SPECIAL_TOKENS,
            **conversation.get("variables", {}),
        )
        return {"ok": texts[0]}
    except Exception as error:
        return {"err": f"{type(error).__name__}: {error}"}


def main():
    found = {"transformers": transformers.__version__, "jinja2": jinja2.__version__}
    if found != VERSIONS:
        sys.exit(f"wanted {VERSIONS}, found {found}")
    result = {
        "special_tokens": SPECIAL_TOKENS,
        "conversations": CONVERSATIONS,
        "templates": [{"name": name, "source": source, "results": [rendered(source, c) for c in CONVERSATIONS]}
                      for name, source in templates(sys.argv[1])],
    }
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
