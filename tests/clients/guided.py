"""Both packages demand calls of tools and formats from a small model with a plain chat template, which knows neither."""

import json
import re
from typing import Literal

import anthropic
import openai
import pydantic
from suite import check, main, raises

QUESTION = [{"role": "user", "content": "Tell me about a fox."}]
GREEDY = {"model": "default", "temperature": 0}
COLD = {"model": "default", "extra_body": {"temperature": 0}}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
FUNCTIONS = [{"name": "weather", "parameters": SCHEMA}, {"name": "noop", "parameters": NOTHING}]
TOOLS = [{"type": "function", "function": function} for function in FUNCTIONS]
FLAT = [{"type": "function", **function} for function in FUNCTIONS]
CUSTOM = [{"name": function["name"], "input_schema": function["parameters"]} for function in FUNCTIONS]
WEATHER = {"type": "function", "function": {"name": "weather"}}


class Fox(pydantic.BaseModel):
    color: Literal["red", "white"]
    legs: Literal[2, 4]


def first(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def second(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def chat(url, **more):
    ask = {"messages": QUESTION, "max_tokens": 120, "parallel_tool_calls": False, "tools": TOOLS, **GREEDY, **more}
    return first(url).chat.completions.create(**ask)


def fits(arguments):
    assert set(arguments) == {"city", "days"}, arguments
    assert arguments["city"] in ["Paris", "Rome"] and arguments["days"] in range(1, 10), arguments
    return arguments


@check
def calls_in_chats(url):
    choice = chat(url, tool_choice=WEATHER).choices[0]
    [call] = choice.message.tool_calls
    assert (call.type, call.function.name, choice.finish_reason) == ("function", "weather", "tool_calls"), choice
    assert choice.message.content is None and call.id, choice
    arguments = fits(json.loads(call.function.arguments))
    pieces, names, reason = "", [], None
    for chunk in chat(url, tool_choice=WEATHER, stream=True):
        delta, reason = chunk.choices[0].delta, chunk.choices[0].finish_reason or reason
        for part in delta.tool_calls or []:
            assert part.index == 0
            pieces += part.function.arguments or ""
            names += [part.function.name] if part.function.name else []
        assert not delta.content, delta
    assert (json.loads(pieces), names, reason) == (arguments, ["weather"], "tool_calls")
    other = chat(url, tool_choice={"type": "function", "function": {"name": "noop"}}).choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in other] == [("noop", {})]
    for choice in chat(url, tool_choice="required", n=3, temperature=1.5, seed=3).choices:
        [call] = choice.message.tool_calls
        assert call.function.name in ["weather", "noop"], call


@check
def an_answer_to_a_call(url):
    message = chat(url, tool_choice=WEATHER).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    answer = chat(url, messages=[*QUESTION, message.model_dump(exclude_none=True), result], max_tokens=8)
    assert answer.choices[0].finish_reason == "length" and answer.choices[0].message.content, answer


@check
def calls_in_responses(url):
    ask = {"input": "Tell me about a fox.", "tools": FLAT, "tool_choice": {"type": "function", "name": "weather"}}
    ask = {**ask, "parallel_tool_calls": False, "max_output_tokens": 120, **GREEDY}
    answer = first(url).responses.create(**ask)
    [call] = answer.output
    assert (call.type, call.name, call.status, answer.status) == ("function_call", "weather", "completed", "completed")
    arguments = fits(json.loads(call.arguments))
    with first(url).responses.stream(**ask) as stream:
        events = list(stream)
    pieces = "".join(e.delta for e in events if e.type == "response.function_call_arguments.delta")
    assert json.loads(pieces) == arguments
    assert json.loads(events[-1].response.output[0].arguments) == arguments


@check
def calls_in_messages(url):
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    ask = {"messages": QUESTION, "max_tokens": 120, "tools": CUSTOM, "tool_choice": choice, **COLD}
    message = second(url).messages.create(**ask)
    [use] = message.content
    assert (use.type, use.name, message.stop_reason) == ("tool_use", "weather", "tool_use"), message
    fits(use.input)
    with second(url).messages.stream(**ask) as stream:
        last = stream.get_final_message()
    assert last.content[0].input == use.input and last.stop_reason == "tool_use", last
    expected = json.loads(chat(url, tool_choice=WEATHER).choices[0].message.tool_calls[0].function.arguments)
    assert use.input == expected, "whichever interface it comes through, the model reads the same"


@check
def formats(url):
    fox = first(url).chat.completions.parse(messages=QUESTION, max_tokens=80, response_format=Fox, **GREEDY)
    assert isinstance(fox.choices[0].message.parsed, Fox) and fox.choices[0].finish_reason == "stop", fox
    answer = first(url).responses.parse(input="A fox?", max_output_tokens=80, text_format=Fox, **GREEDY)
    assert isinstance(answer.output_parsed, Fox), answer
    schema = {"format": {"type": "json_schema", "schema": {**Fox.model_json_schema(), "additionalProperties": False}}}
    message = second(url).messages.create(messages=QUESTION, max_tokens=80, output_config=schema, **COLD)
    Fox.model_validate_json(message.content[0].text)
    plain = {"messages": QUESTION, "max_tokens": 40, **GREEDY}
    abc = first(url).chat.completions.create(**plain, extra_body={"response_format": {"type": "regex", "pattern": "[abc]{5}"}})
    assert re.fullmatch("[abc]{5}", abc.choices[0].message.content), abc
    lark = {"response_format": {"type": "grammar", "grammar": 'start: "fox" | "goose"'}}
    said = first(url).chat.completions.create(**plain, extra_body=lark).choices[0].message.content
    assert said in ["fox", "goose"], said


@check
def formats_that_nothing_fits(url):
    wrong = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wizard"}}}
    ask = {"messages": QUESTION, "max_tokens": 8, **GREEDY}
    error = raises(openai.BadRequestError, lambda: first(url).chat.completions.create(**ask, response_format=wrong))
    assert error.param and error.param.startswith("response_format"), error
    pattern = {"response_format": {"type": "regex", "pattern": "("}}
    raises(openai.BadRequestError, lambda: first(url).chat.completions.create(**ask, extra_body=pattern))


main()
