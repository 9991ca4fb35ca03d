"""What the tests of the page share: a browser, servers, and what a person does again and again."""

import json

from browser import Browser
from servers import Between, Server

TESTS = []
ANSWER = ".message.assistant:last-child .answer"
QUESTION = "Once upon a time there was a king who had a daughter"


def test(function):
    TESTS.append(function)
    return function


class World:
    """What the tests share: one browser and one server of each kind."""

    def __init__(self, chromium, program, chat, text):
        self.program, self.chat_bundle, self.text_bundle = program, chat, text
        self.browser = Browser(chromium)
        self.server = Server(program, chat)
        self.between = Between(self.server)
        self.pages, self.expected = [], []

    def open(self, url=None, **size):
        """The page, when it knows its model."""
        page = self.browser.page(**size)
        self.pages.append((page, url or self.server.url))
        page.open(url or self.server.url)
        page.wait("document.querySelector('#model').textContent")
        return page

    def expect(self, *words):
        """Errors that have one of these words are part of the test."""
        self.expected += words

    def check(self):
        for page, url in self.pages:
            page.browser.pump(0.05)
            strange = [r for r in page.requests.values() if not r.startswith((url + "/", "data:", "blob:" + url + "/"))]
            assert not strange, f"requests left the server: {strange}"
            wrong = [error for error in page.errors if not any(word in error for word in self.expected)]
            assert not wrong, f"the page reports errors: {wrong}"

    def tidy(self):
        for page, _ in self.pages:
            page.close()
        self.pages, self.expected = [], []
        self.between.pause, self.between.faults, self.between.cut = 0, [], None

    def close(self):
        self.browser.close()
        self.between.close()
        self.server.close()


def ask(page, text=QUESTION):
    page.click("#input")
    page.type(text)
    page.key("Enter")


def finished(page):
    page.wait("document.querySelector('#stop').hidden && document.querySelector('.message.assistant:last-child')")


def answered(page, text=QUESTION):
    ask(page, text)
    page.wait("!document.querySelector('#input').value")
    finished(page)
    return page.text(ANSWER)


def set_sampling(page, **values):
    page.click("#settings-open")
    for name, value in values.items():
        page.js(f"document.querySelector('#sampling-{name}').value = {json.dumps(str(value))}")
    page.click("#settings button[value=save]")
    page.wait("!document.querySelector('#settings').open")


def kept(page, condition="true"):
    """Waits until the browser has saved what the page shows, and a condition on the saved `records` holds. A page that is
    opened again sooner may miss the last change."""
    page.wait_for(f"""new Promise((done, failed) => {{
      const opening = indexedDB.open("trit-run");
      opening.onerror = failed;
      opening.onsuccess = () => {{
        const all = opening.result.transaction("conversations").objectStore("conversations").getAll();
        all.onerror = failed;
        all.onsuccess = () => {{
          opening.result.close();
          const records = all.result;
          const notes = records.flatMap((record) => record.messages.map((message) => message.note));
          done(records.length === document.querySelectorAll("#list button").length &&
            !notes.some((note) => note.startsWith("The page was closed")) && ({condition}));
        }};
      }};
    }})""")


def asked(page):
    """The bodies of the page's questions, caught on their way out."""
    page.js("""if (!window.asked) {
      window.asked = [];
      const send = window.fetch;
      window.fetch = (path, options) => { if (options?.body) window.asked.push([path, JSON.parse(options.body)]); return send(path, options); };
    } true""")
    return page.js("window.asked")
