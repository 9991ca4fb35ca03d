"""Questions and answers: streamed, stopped, edited, tried again."""

import json
import time

from servers import stream
from world import ANSWER, QUESTION, answered, ask, asked, finished, kept, set_sampling, test


@test
def an_answer_streams_in(world):
    page = world.open()
    assert page.js("document.activeElement.id") == "input"
    asked(page)
    set_sampling(page, temperature=0, max_tokens=60)
    # How long the answer is whenever it changes.
    page.js(f"""window.lengths = []; new MutationObserver(() => {{
      const node = document.querySelector({json.dumps(ANSWER)});
      if (node) window.lengths.push(node.textContent.length);
    }}).observe(document.querySelector('#messages'), {{ subtree: true, childList: true, characterData: true }}); true""")
    world.server.ask("/health")
    text = answered(page)
    lengths = page.js("[...new Set(window.lengths)]")
    assert len([n for n in lengths if 0 < n < len(text)]) >= 3, f"it came at once: {lengths}"
    [[path, body]] = asked(page)
    assert path == "/v1/chat/completions" and body["messages"] == [{"role": "user", "content": QUESTION}], body
    # What is on the page is what the server answers to anybody.
    _, _, answer = world.server.ask(path, {**body, "stream": False, "stream_options": None})
    said = json.loads(answer)["choices"][0]["message"]["content"]
    assert "".join(text.split()) == "".join(said.split()), (text, said)
    stats = page.text(".message.assistant:last-child .tools")
    assert "60 tokens" in stats and "tokens/s" in stats and "first token after" in stats, stats
    assert "limit of tokens" in page.text(".message.assistant:last-child .note")
    assert "of 1024 tokens" in page.text("#room")
    assert page.js("document.activeElement.id") == "input"


@test
def markup_of_the_user_stays_text(world):
    page = world.open()
    set_sampling(page, max_tokens=4)
    said = "<img src=x onerror=window.harmed=1> <b>bold</b>\n# no heading &amp; **no emphasis**"
    page.click("#input")
    page.type(said.split("\n")[0])
    page.key("Enter", shift=True)
    page.type(said.split("\n")[1])
    page.key("Enter")
    finished(page)
    assert page.text(".message.user .body") == said
    assert page.js("document.querySelectorAll('.message.user .body *').length") == 0
    assert page.text("#title").startswith("<img src=x") and page.text("#list button").startswith("<img src=x")
    assert page.js("window.harmed === undefined && document.images.length === 0")


@test
def markup_of_the_model_stays_text(world):
    page = world.open(world.between.url)
    hostile = ("<script>window.harmed = 1</script>\n\n<img src=x onerror=window.harmed=1>\n\n"
               "[click](javascript:window.harmed=1) ![p](https://a.example/x.png)\n\n| <b>a</b> | b |\n|--|--|\n| <i>c</i> | d |\n\n"
               "```html\n<script>window.harmed = 1</script>\n```\n\n**strong** [site](https://b.example/c)")
    world.between.faults.append(stream({"reasoning_content": "<b>hm</b> <script>window.harmed=1</script>"}, *hostile))
    answered(page)
    answer = json.dumps(ANSWER)
    assert page.js(f"document.querySelectorAll({answer} + ' :is(script, img, b, i, iframe)').length") == 0
    assert "<script>window.harmed = 1</script>" in page.text(ANSWER)
    assert page.text(ANSWER + " strong") == "strong"
    links = page.js(f"[...document.querySelectorAll({answer} + ' a')].map((a) => [a.href, a.rel, a.target])")
    apart = ["noopener noreferrer nofollow", "_blank"]
    assert links == [["https://a.example/x.png", *apart], ["https://b.example/c", *apart]], links
    assert page.text(".thought").startswith("<b>hm</b>") and page.js("document.querySelector('.thought').children.length") == 0
    kept(page)
    page.reload()
    page.wait(f"document.querySelector({answer})")
    assert page.js("window.harmed === undefined && document.images.length === 0")


@test
def thinking_is_folded(world):
    page = world.open(world.between.url)
    world.between.faults.append(stream({"reasoning_content": "First I "}, {"reasoning_content": "think."}, "Then I ", "speak."))
    assert answered(page) == "Then I speak."
    assert page.js("document.querySelector('details').open") is False and not page.js("document.querySelector('.thought').checkVisibility()")
    assert page.text("summary").startswith("Thought for ")
    page.click("summary")
    assert page.js("document.querySelector('.thought').checkVisibility()") and page.text(".thought") == "First I think."
    # What was thought is not said again.
    asked(page)
    world.between.faults.append(stream("More."))
    answered(page, "Go on")
    messages = asked(page)[0][1]["messages"]
    assert messages == [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "Then I speak."},
                        {"role": "user", "content": "Go on"}], messages


@test
def code_is_copied(world):
    page = world.open(world.between.url)
    page.browser.send("Browser.grantPermissions", origin=world.between.url, browserContextId=page.context,
                      permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    world.between.faults.append(stream("Here:\n\n```py", "thon\nprint('a')\n", "  b < c\n```\nDone."))
    answered(page)
    assert page.text(".code span") == "python"
    page.click(".code button")
    page.wait("document.querySelector('.code button').textContent === 'Copied'")
    assert page.js("navigator.clipboard.readText()") == "print('a')\n  b < c\n"
    page.click(".message.assistant .tools button")
    page.wait("document.querySelector('.message.assistant .tools button').textContent === 'Copied'")
    assert page.js("navigator.clipboard.readText()").startswith("Here:\n\n```python\n")


@test
def escape_stops_an_answer(world):
    page = world.open(world.between.url)
    set_sampling(page, temperature=0, max_tokens=400)
    world.between.pause, gone = 0.05, world.between.gone
    ask(page)
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 20")
    assert page.js("document.querySelector('#stop').checkVisibility() && !document.querySelector('#send').checkVisibility()")
    page.key("Escape")
    finished(page)
    assert page.text(".message.assistant .note") == "Stopped."
    text = page.text(ANSWER)
    until = time.monotonic() + 30
    while world.between.gone == gone and time.monotonic() < until:
        page.browser.pump(0.05)
    assert world.between.gone == gone + 1, "the server is told that nobody listens"
    page.browser.pump(0.3)
    assert page.text(ANSWER) == text and len(text) > 20
    # The same with the button; and what was stopped is there after opening the page again.
    page.click(".message.assistant .tools button:nth-child(3)")
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 20")
    page.click("#stop")
    finished(page)
    assert page.text(".message.assistant .note") == "Stopped." and page.js("document.activeElement.id") == "input"
    kept(page)
    page.reload()
    page.wait("document.querySelector('.message.assistant .note')?.textContent === 'Stopped.'")


@test
def a_message_is_edited_and_the_conversation_goes_on_from_there(world):
    page = world.open()
    set_sampling(page, temperature=0, max_tokens=12)
    first = answered(page, "A king")
    answered(page, "and his daughter")
    assert len(page.texts(".message")) == 4
    asked(page)
    page.click(".message.user .tools button:nth-child(2)")
    assert page.js("document.activeElement.tagName") == "TEXTAREA" and page.js("document.activeElement.value") == "A king"
    page.js("document.activeElement.select()")
    page.type("A poor miller")
    page.key("Enter")
    page.wait("document.querySelector('.message.user .body').textContent === 'A poor miller'")
    finished(page)
    assert len(page.texts(".message")) == 2
    assert asked(page)[0][1]["messages"] == [{"role": "user", "content": "A poor miller"}]
    second = page.text(ANSWER)
    # The conversation as it was is still there.
    assert "2 of 2" in page.text(".message.user .tools")
    page.click(".message.user [aria-label='Earlier version']")
    page.wait("document.querySelectorAll('.message').length === 4")
    assert page.text(".message.user .body") == "A king" and page.texts(".answer")[0] == first != second
    # An edit that is given up changes nothing, and puts the focus back.
    page.click(".message.user .tools button:nth-child(2)")
    page.type(" more")
    page.key("Escape")
    assert page.text(".message.user .body") == "A king" and page.js("document.activeElement.textContent") == "Edit"
    # What the model said can be changed too, and goes on as changed.
    page.click(".message.assistant .tools button:nth-child(2)")
    page.js("document.activeElement.select()")
    page.type("who had *three* sons")
    page.key("Enter")
    page.wait("document.querySelectorAll('.message').length === 2")
    assert page.text(".answer em") == "three" and "Edited." in page.text(".message.assistant .note")
    page.click(".message.assistant .tools button:nth-child(4)")
    page.wait("document.querySelector('.message.assistant .note').textContent.includes('limit of tokens')")
    finished(page)
    body = asked(page)[-1][1]
    assert body["messages"][-1] == {"role": "assistant", "content": "who had *three* sons"} and body["continue_final_message"], body
    changed = page.text(ANSWER)
    assert changed.startswith("who had three sons") and len(changed) > len("who had three sons") + 10, changed
    assert page.text(".answer em") == "three" and len(page.texts(".message")) == 2
    answered(page, "and a cat")
    said = [message["content"] for message in asked(page)[-1][1]["messages"]]
    assert said[0] == "A king" and "".join(said[1].replace("*", "").split()) == "".join(changed.split()) and said[2] == "and a cat", said


@test
def an_answer_is_tried_again(world):
    page = world.open()
    set_sampling(page, temperature=1, seed=7, max_tokens=24)
    asked(page)
    first = answered(page)
    page.click(".message.assistant .tools button:nth-child(3)")
    page.wait("document.querySelector('.message.assistant .tools').textContent.includes('2 of 2')")
    finished(page)
    second = page.text(ANSWER)
    assert first != second, "another seed gives another answer"
    assert [body["seed"] for _, body in asked(page)] == [7, 8]
    page.click(".message.assistant [aria-label='Earlier version']")
    page.wait("document.querySelector('.message.assistant .tools').textContent.includes('1 of 2')")
    assert page.text(ANSWER) == first
    assert page.js("document.activeElement.getAttribute('aria-label')") == "Later version"


@test
def settings_and_system_prompt_are_sent(world):
    page = world.open()
    asked(page)
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "repeat_penalty": 1.1, "max_tokens": 5, "seed": 3}
    set_sampling(page, **wanted)
    page.click("#settings-open")
    page.click("#system")
    page.type("You tell fables.")
    page.click("#settings button[value=save]")
    answered(page)
    body = asked(page)[0][1]
    assert {name: body.get(name) for name in wanted} == wanted, body
    assert body["messages"][0] == {"role": "system", "content": "You tell fables."}
    # What makes no sense is not taken.
    page.click("#settings-open")
    page.js("document.querySelector('#sampling-top_p').value = '7'")
    page.click("#settings button[value=save]")
    assert page.js("document.querySelector('#settings').open && !document.querySelector('#sampling-top_p').validity.valid")
    page.key("Escape")
    # They are kept; and emptied fields are the model's own again.
    page.reload()
    page.wait("document.querySelector('#model').textContent")
    asked(page)
    page.click("#settings-open")
    assert page.js("document.querySelector('#sampling-min_p').value") == "0.05" and page.js("document.querySelector('#system').value")
    assert page.js("document.querySelector('#sampling-temperature').placeholder") == "0.7", "what the model's authors suggest"
    page.click("#reset")
    page.js("document.querySelector('#sampling-max_tokens').value = '5'")
    page.click("#settings button[value=save]")
    answered(page, "Again")
    assert not set(asked(page)[0][1]) & (set(wanted) - {"max_tokens"}), asked(page)
