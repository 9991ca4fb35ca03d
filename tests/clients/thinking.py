"""Both packages against a model whose template opens a thought and knows tools (thinking.jinja)."""

import json

import anthropic
import openai
from suite import ask, check, main

QUESTION = [{"role": "user", "content": "Tell me about a fox."}]
GREEDY = {"model": "default", "temperature": 0}
COLD = {"model": "default", "extra_body": {"temperature": 0}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Gives it.", "parameters": SCHEMA}}
OTHER = {"name": "weather", "description": "Gives it.", "input_schema": SCHEMA}
QUIET = {"chat_template_kwargs": {"enable_thinking": False}}


def first(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


def second(url):
    return anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)


def chat(url, **more):
    return first(url).chat.completions.create(**{"messages": QUESTION, "max_tokens": 12, **GREEDY, **more})


@check
def thoughts_are_apart_from_the_answer(url):
    message = chat(url).choices[0].message
    thought = message.reasoning_content
    assert thought and not message.content, message
    assert chat(url).usage.completion_tokens_details.reasoning_tokens == 12
    chunks = list(chat(url, stream=True))
    assert "".join(getattr(c.choices[0].delta, "reasoning_content", None) or "" for c in chunks) == thought
    assert not any(c.choices[0].delta.content for c in chunks)
    quiet = chat(url, extra_body=QUIET).choices[0].message
    assert quiet.content and getattr(quiet, "reasoning_content", None) is None, quiet


@check
def thoughts_in_responses(url):
    asked = {"input": "Tell me about a fox.", "max_output_tokens": 12, **GREEDY}
    answer = first(url).responses.create(**asked)
    assert [item.type for item in answer.output] == ["reasoning"], answer.output
    thought = answer.output[0].content[0].text
    assert thought == chat(url).choices[0].message.reasoning_content
    assert answer.usage.output_tokens_details.reasoning_tokens == 12
    events = list(first(url).responses.create(**asked, stream=True))
    assert "".join(e.delta for e in events if e.type == "response.reasoning_text.delta") == thought
    quiet = first(url).responses.create(**asked, reasoning={"effort": "none"})
    assert [item.type for item in quiet.output] == ["message"] and quiet.reasoning.effort == "none", quiet


@check
def thoughts_in_messages(url):
    asked = {"messages": QUESTION, "max_tokens": 12, **COLD}
    message = second(url).messages.create(**asked)
    assert [block.type for block in message.content] == ["thinking"], message
    assert message.content[0].thinking == chat(url).choices[0].message.reasoning_content
    with second(url).messages.stream(**asked) as stream:
        thought = "".join(event.thinking for event in stream if event.type == "thinking")
        assert thought == message.content[0].thinking
        assert stream.get_final_message().content[0].signature == message.content[0].signature
    quiet = second(url).messages.create(**asked, thinking={"type": "disabled"})
    assert [block.type for block in quiet.content] == ["text"], quiet


@check
def tools_and_their_results_reach_the_model(url):
    call = {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    said = [
        *QUESTION,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]
    prompt = ask(url, "/apply-template", {"messages": said, "tools": [TOOL]})["prompt"]
    function = json.dumps(TOOL["function"])
    assert prompt == (
        f"<|begin_of_text|>Tools: {function}\n"
        'To call one, write <tool_call>\n{"name": "NAME", "arguments": {}}\n</tool_call><|eot_id|>'
        "User: Tell me about a fox.<|eot_id|>"
        'Assistant: <tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call><|eot_id|>'
        "Tool: <tool_response>\nrain\n</tool_response><|eot_id|>Assistant: <think>\n"
    ), prompt
    # Whichever interface it comes through, the model reads the same.
    openai_tokens = chat(url, messages=said, tools=[TOOL]).usage.prompt_tokens
    use = {"type": "tool_use", "id": "a", "name": "weather", "input": {"city": "Paris"}}
    result = {"type": "tool_result", "tool_use_id": "a", "content": "rain"}
    blocks = [*QUESTION, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    counted = second(url).messages.count_tokens(messages=blocks, tools=[OTHER], model="default")
    items = [
        *QUESTION,
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city": "Paris"}'},
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
    ]
    flat = {"type": "function", **TOOL["function"]}
    answer = first(url).responses.create(input=items, tools=[flat], max_output_tokens=4, **GREEDY)
    assert openai_tokens == counted.input_tokens == answer.usage.input_tokens
    never = chat(url, tools=[TOOL], tool_choice="none").usage.prompt_tokens
    assert never == chat(url).usage.prompt_tokens < chat(url, tools=[TOOL]).usage.prompt_tokens


main()
