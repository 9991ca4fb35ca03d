"""Takes the pictures of the chat page that README.md shows.

    python3 tests/page/screenshots.py CHROMIUM TRIT_RUN TRITC [FOLDER]

The model is the shipped one, which is no assistant: it gets a chat template that puts what is said one after the other, so that
both tell one story in turns. Everything is chosen by seeds, so that the words are the same each time.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

from browser import Browser
from servers import Server

REPOSITORY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
STORY = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% if not loop.last %} {% endif %}{% endfor %}"
# What the page asks in, with seeds that give these stories a shape.
TURNS = [("Once upon a time there was a fisherman who lived with his wife by the sea, and one day", 3, 98), ("In the morning she", 7, 46)]
EARLIER = ["The fox and the crow met at the well", "There was once a king who had three sons"]
SAMPLING = {"temperature": "0.6", "top_k": "30", "repeat_penalty": "1.15"}
MOST = 150_000  # Bytes of a picture.


def bundle(tritc, folder):
    checkpoint = os.path.join(folder, "checkpoint")
    shutil.copytree(os.path.join(REPOSITORY, "examples/models/fables-12m"), checkpoint)
    path = os.path.join(checkpoint, "tokenizer_config.json")
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({**config, "chat_template": STORY}, file)
    out = os.path.join(folder, "fables-12m.trit")
    subprocess.run([tritc, "compile", checkpoint, "-o", out], check=True, stdout=subprocess.DEVNULL)
    return out


def sample(page, **values):
    page.click("#settings-open")
    for name, value in values.items():
        page.js(f"document.querySelector('#sampling-{name}').value = {json.dumps(str(value))}")
    page.click("#settings button[value=save]")


def say(page, text, seed, tokens):
    sample(page, **SAMPLING, seed=seed, max_tokens=tokens)
    page.click("#input")
    page.type(text)
    page.key("Enter")
    page.wait("document.querySelector('#stop').hidden && document.querySelector('.message.assistant:last-child .tools').textContent.includes('tokens/s')")


def tell(page, url, earlier):
    page.open(url)
    page.wait("document.querySelector('#model').textContent")
    for text in earlier:
        say(page, text, 1, 4)
        page.click("#new")
    for text, seed, tokens in TURNS:
        say(page, text, seed, tokens)
    page.js("document.activeElement.blur(); true")


def picture(page, folder, name):
    path = os.path.join(folder, name)
    page.screenshot(path)
    size = os.path.getsize(path)
    print(f"{path}: {size} bytes")
    assert size < MOST, f"{path} has {size} bytes, more than {MOST}"


def main():
    chromium, program, tritc, *rest = sys.argv[1:]
    out = rest[0] if rest else os.path.join(REPOSITORY, "docs/images")
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in ("TRIT_TRUST_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            os.environ[name] = os.path.join(folder, name)
        server = Server(program, bundle(tritc, folder))
        browser = Browser(chromium)
        try:
            page = browser.page(width=1160, height=850)
            tell(page, server.url, EARLIER)
            picture(page, out, "chat-light.png")
            page.color("dark")
            picture(page, out, "chat-dark.png")
            page.close()
            page = browser.page(width=390, height=760, scale=1.5, touch=True)
            page.color("dark")
            tell(page, server.url, [])
            picture(page, out, "chat-phone.png")
        finally:
            browser.close()
            server.close()


if __name__ == "__main__":
    main()
