"""Conversations that outlive the page."""

import json
import os
import tempfile
import time

from world import ANSWER, answered, ask, kept, set_sampling, test


@test
def conversations_outlive_the_page(world):
    page = world.open()
    set_sampling(page, temperature=0, max_tokens=10)
    answered(page, "The first")
    page.click("#new")
    assert page.texts(".message") == [] and page.js("document.activeElement.id") == "input"
    answered(page, "The second")
    texts = page.texts(".message")
    kept(page)
    page.reload()
    page.wait("document.querySelectorAll('.message').length === 2")
    assert [t for t in page.texts(".message")] == texts
    assert page.texts("#list button") == ["The second", "The first"]
    assert page.text("#list [aria-current]") == "The second"
    page.click("#list li:nth-child(2) button")
    page.wait("document.querySelector('.message.user .body').textContent === 'The first'")
    # Renamed.
    page.click("#more-open")
    page.click("#rename")
    page.type("A fable")
    page.key("Enter")
    page.wait("document.querySelector('#title').textContent === 'A fable'")
    # Deleted, when it is confirmed.
    page.click("#more-open")
    page.click("#delete")
    assert "A fable" in page.text("#ask-title")
    page.key("Escape")
    page.wait("!document.querySelector('#ask').open")
    kept(page, "records.some((record) => record.title === 'A fable')")
    page.reload()
    page.wait("document.querySelectorAll('#list button').length === 2")
    assert "A fable" in page.texts("#list button")
    page.click("#more-open")
    page.click("#delete")
    page.click("#ask-yes")
    page.wait("document.querySelectorAll('#list button').length === 1")
    page.reload()
    page.wait("document.querySelectorAll('#list button').length === 1")
    assert page.texts("#list button") == ["The second"]


@test
def an_answer_goes_on_while_another_conversation_is_looked_at(world):
    page = world.open(world.between.url)
    set_sampling(page, temperature=0, max_tokens=40)
    world.between.pause = 0.03
    ask(page, "The first")
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 5")
    page.click("#new")
    assert page.js("document.querySelector('#send').checkVisibility()") and page.texts(".message") == []
    page.wait("!document.querySelector('#list [data-running]')")
    page.click("#list button")
    page.wait("document.querySelector('.message.assistant .note')?.textContent.includes('limit of tokens')")
    assert "40 tokens" in page.text(".message.assistant .tools")


@test
def a_page_that_is_closed_keeps_what_had_come(world):
    page = world.open(world.between.url)
    set_sampling(page, temperature=0, max_tokens=400)
    world.between.pause = 0.05
    ask(page)
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 120")
    page.reload()
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 10")
    assert "closed before the answer was complete" in page.text(".message.assistant .note")


@test
def conversations_are_exported_and_imported(world):
    page = world.open()
    set_sampling(page, temperature=0, max_tokens=10)
    answered(page, "To be kept")
    texts = page.texts(".message .body, .message .answer")
    with tempfile.TemporaryDirectory() as folder:
        page.browser.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=folder, browserContextId=page.context)
        page.click("#export")
        path = os.path.join(folder, "trit-run-conversations.json")
        until = time.monotonic() + 30
        while not os.path.exists(path) and time.monotonic() < until:
            page.browser.pump(0.05)
        with open(path, encoding="utf-8") as file:
            exported = json.load(file)
        assert [c["messages"][0]["text"] for c in exported["conversations"]] == ["To be kept"], exported

        def bring(text):
            other = os.path.join(folder, "other.json")
            with open(other, "w", encoding="utf-8") as file:
                file.write(text)
            node = page.send("Runtime.evaluate", expression="document.querySelector('#file')")["result"]["objectId"]
            page.send("DOM.setFileInputFiles", files=[other], objectId=node)

        page.click("#more-open")
        page.click("#delete")
        page.click("#ask-yes")
        page.wait("document.querySelectorAll('#list button').length === 0")
        bring(json.dumps(exported))
        page.wait("document.querySelectorAll('.message').length === 2")
        assert page.texts(".message .body, .message .answer") == texts
        # Files that are none of these are refused in words, and change nothing.
        conversation = exported["conversations"][0]
        ring = {**conversation, "messages": [{**m, "parent": m["id"]} for m in conversation["messages"]]}
        for damaged, words in [
            ("{", "not JSON"), ("[]", "no conversations"), ('{"format": "trit-run conversations", "version": 2, "conversations": []}', "later version"),
            (json.dumps({**exported, "conversations": [{}]}), "damaged"), (json.dumps({**exported, "conversations": [ring]}), "damaged"),
        ]:
            bring(damaged)
            page.wait(f"document.querySelector('#notice').textContent.includes({json.dumps(words)})")
            assert len(page.texts("#list button")) == 1
        # Markup in a file stays text.
        conversation["title"] = "<img src=x onerror=window.harmed=1>"
        conversation["messages"][1]["text"] = "<img src=x onerror=window.harmed=1> **b**"
        bring(json.dumps(exported))
        page.wait("document.querySelector('#title').textContent.startsWith('<img')")
        assert page.text(ANSWER + " strong") == "b" and page.js("document.images.length === 0 && window.harmed === undefined")


@test
def a_full_browser_is_told(world):
    page = world.open()
    set_sampling(page, temperature=0, max_tokens=10)
    world.expect("QuotaExceeded")
    page.send("Storage.overrideQuotaForOrigin", origin=world.server.url, quotaSize=1)
    answered(page, "No room for this ")
    page.wait("document.querySelector('#notice').textContent.includes('no room left')")
    assert page.js("document.querySelector('#notice').getAttribute('role')") == "alert"
    # The conversation goes on all the same.
    answered(page, "Go on")
    assert len(page.texts(".message")) == 4
    page.send("Storage.overrideQuotaForOrigin", origin=world.server.url)
