"""Both packages against a server with a key and narrow limits: one slot, one request waiting, bodies of 64 KiB."""

import os
import signal
import sys
import threading

import anthropic
import openai
from suite import check, main, raises

QUESTION = [{"role": "user", "content": "Tell me about a fox."}]
GREEDY = {"model": "default", "temperature": 0}
COLD = {"model": "default", "extra_body": {"temperature": 0}}


def first(url, key="secret"):
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def second(url, key="secret"):
    return anthropic.Anthropic(base_url=url, api_key=key, max_retries=0)


def chat(url, key="secret", **more):
    ask = {"messages": QUESTION, "max_tokens": 4, **GREEDY, **more}
    return first(url, key).chat.completions.create(**ask)


def message(url, key="secret", **more):
    ask = {"messages": QUESTION, "max_tokens": 4, **COLD, **more}
    return second(url, key).messages.create(**ask)


@check
def keys(url):
    assert chat(url).choices and message(url).content
    raises(openai.AuthenticationError, lambda: chat(url, "wrong"), status_code=401)
    error = raises(anthropic.AuthenticationError, lambda: message(url, "wrong"), status_code=401)
    assert error.body["error"]["type"] == "authentication_error", error.body


@check
def large_bodies(url):
    long = [{"role": "user", "content": "x" * (128 << 10)}]
    error = raises(openai.APIStatusError, lambda: chat(url, messages=long), status_code=413)
    assert "body" in str(error), error
    error = raises(anthropic.RequestTooLargeError, lambda: message(url, messages=long), status_code=413)
    assert error.body["error"]["type"] == "request_too_large", error.body


@check
def full_queues(url):
    error = raises(openai.RateLimitError, lambda: chat(url, n=8), status_code=429)
    assert int(error.response.headers["retry-after"]) >= 1 and error.code == "rate_limit_exceeded", error
    # The answers that were taken along with it are cancelled.
    assert patient(url).chat.completions.create(messages=QUESTION, max_tokens=4, **GREEDY).choices


def patient(url):
    return openai.OpenAI(base_url=f"{url}/v1", api_key="secret", max_retries=8)


@check
def the_end(url):
    """Answers that have begun are finished after the server was told to end; new ones are not begun."""
    pid = int(sys.argv[2])
    streams = [first(url).chat.completions.create(**LONG) for _ in range(2)]
    parts = [iter(stream) for stream in streams]
    for part in parts:
        next(part)
    os.kill(pid, signal.SIGTERM)
    reasons = [None, None]

    def read(at):
        for chunk in parts[at]:
            reasons[at] = chunk.choices[0].finish_reason or reasons[at]

    # The one that waits for the slot has not begun to be read, so that it cannot end before new requests were tried.
    error = raises(openai.InternalServerError, lambda: retried(lambda: chat(url)), status_code=503)
    assert "shutting down" in str(error), error
    error = raises(anthropic.ServiceUnavailableError, lambda: message(url), status_code=503)
    assert error.body["error"]["type"] == "overloaded_error", error.body
    threads = [threading.Thread(target=read, args=(at,)) for at in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert reasons == ["length", "length"], reasons


LONG = {"messages": QUESTION, "max_tokens": 700, "stream": True, "extra_body": {"ignore_eos": True}, **GREEDY}


def retried(call):
    """The signal takes a moment; until then the queue is full."""
    while True:
        try:
            call()
        except openai.RateLimitError:
            continue


main()
