"""Texts that the model continues."""

import json

from servers import Server
from world import QUESTION, asked, kept, set_sampling, test


@test
def a_model_without_a_template_continues_texts(world):
    server = Server(world.program, world.text_bundle)
    try:
        page = world.open(server.url)
        page.wait("document.querySelector('#text').checkVisibility()")
        assert not page.js("document.querySelector('#composer').checkVisibility() || document.querySelector('#modes').checkVisibility()")
        asked(page)
        set_sampling(page, temperature=0.9, seed=1, max_tokens=20)
        page.click("#text")
        page.type(QUESTION)
        page.key("Enter", ctrl=True)
        page.wait("document.querySelector('#text-note').textContent.includes('20 tokens')")
        first = page.js("document.querySelector('#text').value")
        assert first.startswith(QUESTION) and len(first) > len(QUESTION) + 20, first
        path, body = asked(page)[0]
        assert path == "/v1/completions" and body["prompt"] == QUESTION and body["seed"] == 1, body
        page.click("#again")
        page.wait(f"document.querySelector('#text-note').textContent.includes('20 tokens') && document.querySelector('#text').value !== {json.dumps(first)}")
        second = page.js("document.querySelector('#text').value")
        assert second.startswith(QUESTION) and asked(page)[1][1]["prompt"] == QUESTION and asked(page)[1][1]["seed"] == 2
        page.click("#continue")
        page.wait(f"document.querySelector('#again').checkVisibility() && document.querySelector('#text').value.length > {len(second)} + 20")
        page.click("#back")
        assert page.js("document.querySelector('#text').value") == second
        kept(page, f"records[0].text === {json.dumps(second)}")
        page.reload()
        page.wait(f"document.querySelector('#text').value === {json.dumps(second)} && document.querySelector('#model').textContent")
    finally:
        server.close()


@test
def a_model_with_a_template_continues_texts_where_asked(world):
    page = world.open()
    set_sampling(page, temperature=0, max_tokens=10)
    page.click("#modes label:nth-of-type(2)")
    page.wait("document.querySelector('#text').checkVisibility() && !document.querySelector('#composer').checkVisibility()")
    page.click("#text")
    page.type(QUESTION)
    page.click("#continue")
    page.wait("document.querySelector('#text-note').textContent.includes('10 tokens')")
