"""What goes wrong is told in words, and tried again."""

import json
import os

from servers import Server, stream
from world import ANSWER, answered, ask, finished, set_sampling, test


@test
def errors_are_told_in_words_and_tried_again(world):
    page = world.open(world.between.url)
    world.expect("Failed to load resource", "ERR_INCOMPLETE", "ERR_CONNECTION")
    set_sampling(page, temperature=0, max_tokens=10)
    as_json = {"content-type": "application/json"}
    for fault, words in [
        ((400, as_json, '{"error": {"message": "the prompt has <b>2000</b> tokens"}}'), "the prompt has <b>2000</b> tokens"),
        ((429, {**as_json, "retry-after": "7"}, '{"error": {"message": "full"}}'), "Try again in 7 s"),
        ((503, as_json, '{"error": {"message": "the server is shutting down"}}'), "shutting down"),
        ((500, {"content-type": "text/html"}, "<h1>oops</h1>"), "(500)"),
        (stream("It ", end='data: {"error": {"message": "the model gave up"}}\n\n'), "the model gave up"),
        (stream("It ", end=""), "before the answer was complete"),
        ((200, {"content-type": "text/event-stream"}, "data: {not json\n\n"), "not an answer"),
        ((200, {"content-type": "text/event-stream"}, ""), "before the answer was complete"),
    ]:
        world.between.faults.append(fault)
        ask(page, "Tell me")
        page.wait("document.querySelector('.note.failed:not([hidden])')")
        assert words in page.text(".note.failed"), (words, page.text(".note.failed"))
        assert page.js("document.querySelector('.note b')") is None
        before = len(page.texts(".message"))
        page.click(".note.failed button")
        page.wait("!document.querySelector('.note.failed:not([hidden])')")
        finished(page)
        assert len(page.texts(".message")) == before and page.text(ANSWER)
        page.click("#new")
    # An answer that breaks off keeps what had come.
    world.between.cut = 12
    ask(page, "Tell me")
    page.wait("document.querySelector('.note.failed:not([hidden])')")
    assert "before the answer was complete" in page.text(".note.failed") and page.text(ANSWER)


@test
def a_server_that_is_gone_is_told(world):
    server = Server(world.program, world.chat_bundle)
    try:
        page = world.open(server.url)
        world.expect("ERR_CONNECTION", "ERR_EMPTY_RESPONSE")
        set_sampling(page, temperature=0, max_tokens=10)
        server.close()
        ask(page)
        page.wait("document.querySelector('.note.failed')?.textContent.includes('does not answer')")
        server = Server(world.program, world.chat_bundle, port=server.port)
        page.click(".note.failed button")
        page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 10")
        finished(page)
    finally:
        server.close()


@test
def a_key_is_asked_for(world):
    os.environ["TRIT_API_KEY"] = "open-sesame"
    try:
        server = Server(world.program, world.chat_bundle)
    finally:
        del os.environ["TRIT_API_KEY"]
    try:
        page = world.browser.page()
        world.pages.append((page, server.url))
        world.expect("401")
        page.open(server.url)
        page.wait("document.querySelector('#key').open")
        assert "wants a key" in page.text("#key-why") and page.js("document.activeElement.id") == "key-value"
        page.type("open-barley")
        page.key("Enter")
        page.wait("document.querySelector('#key').open && document.querySelector('#key-why').textContent.includes('does not accept')")
        page.type("open-sesame")
        page.key("Enter")
        page.wait("document.querySelector('#model').textContent")
        set_sampling(page, temperature=0, max_tokens=10)
        assert answered(page)
        kept = page.js("[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]")
        assert "sesame" in kept[0] and "sesame" not in kept[1] + kept[2], kept
        # A key that stops being right is asked for in the middle of a conversation, and the question is then asked again.
        page.js("sessionStorage.setItem('trit-run.key', 'old')")
        ask(page, "Go on")
        page.wait("document.querySelector('#key').open")
        page.type("open-sesame")
        page.key("Enter")
        page.wait("document.querySelectorAll('.message').length === 4 && !document.querySelector('.note.failed:not([hidden])')")
        finished(page)
        assert page.text(ANSWER)
    finally:
        server.close()
