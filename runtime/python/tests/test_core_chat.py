"""Conversations: templates, answers and their parts, calls of tools."""

import json
import shutil
from pathlib import Path

import pytest

import trit

TEMPLATE = (
    "{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools>{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for call in m.tool_calls or [] %}\n<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "</{{ m.role }}>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}{{ extra or '' }}"
)
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Gives the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def chatty(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> trit.Model:
    """The shipped model with a chat template, which it was not trained for."""
    folder = tmp_path_factory.mktemp("chat")
    copy = folder / "chatty"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    (copy / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": TEMPLATE}))
    return trit.Model(trit.compile(copy, folder / "chatty.trit"))


def test_the_template_makes_the_prompt(chatty: trit.Model) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who ran?"}]
    prompt = chatty.apply_chat_template(messages)
    assert prompt == "<system>Be brief.</system>\n<user>Who ran?</user>\n<assistant>"
    assert chatty.apply_chat_template("Who ran?") == "<user>Who ran?</user>\n<assistant>"
    assert chatty.apply_chat_template(messages, add_generation_prompt=False, extra="!").endswith("</user>\n!")
    ids = chatty.apply_chat_template(messages, tokenize=True)
    assert ids == chatty.tokenize(prompt, special=False)
    assert "weather" in chatty.apply_chat_template(messages, [TOOL])


def test_an_answer_is_what_the_prompt_is_continued_with(chatty: trit.Model) -> None:
    answer = chatty.chat("Who ran?", max_tokens=20, temperature=0)
    prompt = chatty.apply_chat_template("Who ran?", tokenize=True)
    continued = chatty.generate(prompt, max_tokens=20, temperature=0)
    assert answer.generation.ids == continued.ids
    assert answer.text.strip() == (continued.text or "").strip()
    assert answer.message == {"role": "assistant", "content": answer.text}
    assert answer.tool_calls == [] and answer.reasoning == "" and answer.finish == continued.finish
    stream = chatty.chat([{"role": "user", "content": "Who ran?"}], max_tokens=20, temperature=0, stream=True)
    parts = list(stream)
    assert {part.kind for part in parts} == {"text"} and "".join(map(str, parts)) == answer.text
    assert stream.result is not None and stream.result.text == answer.text


def test_tools_are_called(chatty: trit.Model) -> None:
    for choice in ["required", "weather", {"type": "function", "function": {"name": "weather"}}]:
        answer = chatty.chat(
            "What is the weather?",
            [TOOL],
            tool_choice=choice,
            parallel_tool_calls=False,
            max_tokens=100,
            seed=1,
        )
        assert answer.finish == "tool_calls"
        (call,) = answer.tool_calls
        assert call["function"]["name"] == "weather" and call["type"] == "function"
        assert json.loads(call["function"]["arguments"])["city"] in {"Paris", "Rome"}
    stream = chatty.chat(
        "Weather?", [TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=100, stream=True
    )
    parts = list(stream)
    assert parts[0].kind == "tool_call" and parts[0].name == "weather" and parts[0].id
    arguments = "".join(part.text for part in parts if part.kind == "tool_arguments")
    assert json.loads(arguments)["city"] in {"Paris", "Rome"}
    message = answer.message
    result = {"role": "tool", "tool_call_id": call["id"], "content": "Rain."}
    conversation = [{"role": "user", "content": "Weather?"}, message, result]
    assert "Rain." in chatty.apply_chat_template(conversation, [TOOL])
    assert isinstance(chatty.chat(conversation, [TOOL], max_tokens=5).text, str)


def test_answers_may_have_a_form(chatty: trit.Model) -> None:
    assert chatty.chat("A number?", regex="[0-9]{3}", max_tokens=20).text.isdigit()
    assert chatty.chat("Which?", choices=["fox", "crow"], max_tokens=20).text in {"fox", "crow"}


def test_the_last_message_is_continued(chatty: trit.Model) -> None:
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The fox"}]
    answer = chatty.chat(messages, continue_last=True, max_tokens=5, temperature=0)
    prompt = "<user>Who?</user>\n<assistant>The fox"
    assert (
        answer.generation.ids
        == chatty.generate(chatty.tokenize(prompt, special=False), max_tokens=5, temperature=0).ids
    )


@pytest.mark.parametrize(
    "messages, options, error, words",
    [
        ([], {}, ValueError, "messages is empty"),
        ([{}], {}, ValueError, r"messages\[0\].role"),
        ([{"role": "king", "content": "a"}], {}, ValueError, "king"),
        ([{"role": "user", "content": 3}], {}, ValueError, r"messages\[0\].content"),
        ([{"role": "user", "content": object()}], {}, TypeError, "messages"),
        ([{"role": "user", "content": float("nan")}], {}, ValueError, "messages"),
        ([{"role": "user", "content": "\ud800"}], {}, ValueError, "messages"),
        ({"role": "user"}, {}, TypeError, "messages"),
        (3, {}, TypeError, "messages"),
        ("a", {"tools": [{}]}, ValueError, r"tools\[0\]"),
        ("a", {"tools": 3}, ValueError, "tools"),
        ("a", {"tool_choice": "required"}, ValueError, "tool_choice"),
        ("a", {"template_variables": 3}, TypeError, "template_variables"),
        ("a", {"nonsense": 3}, TypeError, "nonsense"),
        ("word " * 3000, {}, trit.ContextError, "context"),
    ],
)
def test_wrong_conversations_are_named(
    chatty: trit.Model, messages: object, options: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        chatty.chat(messages, **options)  # type: ignore[call-overload]


def test_a_model_without_a_template_says_so(checkpoint: Path, tmp_path: Path) -> None:
    copy = tmp_path / "plain"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (copy / "tokenizer_config.json").write_text(json.dumps(config))
    model = trit.Model(trit.compile(copy, tmp_path / "plain.trit"))
    assert model.chat_template is None
    with pytest.raises(ValueError, match="chat template"):
        model.chat("Hello")
    with pytest.raises(ValueError, match="chat template"):
        model.apply_chat_template("Hello")
