"""Dark and light, phones, the keyboard, and those who listen."""

import json

from servers import stream
from world import ANSWER, answered, ask, finished, set_sampling, test


def contrast(page):
    """The least contrast of any text on the page with what is behind it, and where it is."""
    return page.js("""(() => {
      const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
      const rgba = (color, under) => {
        canvas.globalCompositeOperation = 'source-over';
        canvas.fillStyle = under ?? '#000'; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = canvas.getImageData(0, 0, 1, 1).data;
        return `rgb(${r}, ${g}, ${b})`;
      };
      const luminance = (color) => {
        const [r, g, b] = color.match(/\\d+/g).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (node) => {
        if (!node) return rgba(getComputedStyle(document.documentElement).backgroundColor, '#fff');
        return rgba(getComputedStyle(node).backgroundColor, behind(node.parentElement));
      };
      let least = [100, ''];
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (walker.nextNode()) {
        const node = walker.currentNode.parentElement;
        if (walker.currentNode.data.trim() === '' || !node.checkVisibility() || ['STYLE', 'SCRIPT', 'NOSCRIPT'].includes(node.tagName)) continue;
        const back = behind(node);
        const [a, b] = [luminance(rgba(getComputedStyle(node).color, back)), luminance(back)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < least[0]) least = [ratio, `${walker.currentNode.data.trim().slice(0, 40)} (${node.tagName}.${node.className})`];
      }
      return least;
    })()""")


@test
def it_is_dark_and_light_and_can_be_read_in_both(world):
    page = world.open(world.between.url)
    world.expect("Failed to load resource")
    world.between.faults.append(stream({"reasoning_content": "hm"}, "# Head\n> quote\n\n[a](https://a.example/) `code`\n\n|a|b|\n|-|-|\n|c|d|\n\n```js\nx\n```"))
    answered(page)
    page.click("summary")
    world.between.faults.append((500, {}, ""))
    ask(page, "Fail")
    page.wait("document.querySelector('.note.failed')")
    back = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.js(back)
    for scheme in ("light", "dark"):
        page.color(scheme)
        ratio, where = contrast(page)
        assert ratio >= 4.5, f"{scheme}: contrast {ratio:.2f} of {where}"
    dark = page.js(back)
    assert light == "rgb(251, 250, 247)" and dark == "rgb(27, 27, 26)", (light, dark)
    # The switch goes before what the system says, and is kept.
    page.click("#theme")
    assert page.text("#theme") == "Theme: light" and page.js(back) == light
    page.reload()
    page.wait("document.querySelector('#theme').textContent === 'Theme: light'")
    assert page.js(back) == light
    page.color("light")
    page.click("#theme")
    assert page.text("#theme") == "Theme: dark" and page.js(back) == dark
    page.click("#theme")
    assert page.text("#theme") == "Theme: automatic" and page.js(back) == light


@test
def it_fits_a_phone(world):
    page = world.open(world.between.url, width=340, height=640, scale=2, touch=True)
    fits = "document.documentElement.scrollWidth <= 340 && document.querySelector('#scroll').scrollWidth <= 340"
    assert page.js(fits)
    wide = "w" * 300
    world.between.faults.append(stream(f"{wide}\n\n```\n{wide}\n```\n\n| {wide} | b |\n|-|-|\n| c | {wide} |\n\n[{wide}](https://{'a' * 60}.example/)"))
    answered(page, wide)
    assert page.js(fits), page.js("[document.documentElement.scrollWidth, document.querySelector('#scroll').scrollWidth]")
    small = page.js("""[...document.querySelectorAll('button')].filter((b) => b.checkVisibility({ visibilityProperty: true }))
      .map((b) => [b.textContent, b.getBoundingClientRect()]).filter(([, r]) => r.height < 24 || r.width < 24 || r.right > 340 || r.left < 0)
      .map(([text]) => text)""")
    assert not small, f"too small to touch, or outside of the screen: {small}"
    # The conversations come in from the side, and go.
    assert not page.js("document.querySelector('#list button').checkVisibility({ visibilityProperty: true })")
    page.click("#menu")
    page.wait("document.activeElement.id === 'new'")
    assert page.js("document.querySelector('#list button').checkVisibility({ visibilityProperty: true })")
    assert page.js("document.querySelector('main').inert") and page.js(fits)
    page.key("Escape")
    assert not page.js("document.querySelector('#new').checkVisibility({ visibilityProperty: true })")
    assert page.js("document.activeElement.id") == "menu" and not page.js("document.querySelector('main').inert")
    page.click("#menu")
    page.click("#list button")
    assert page.js("document.activeElement.id") == "menu"
    page.click("#settings-open")
    assert page.js(fits + " && document.querySelector('#settings').scrollWidth <= document.querySelector('#settings').clientWidth")
    page.click("#settings button[value='']")


def tab_to(page, wanted, shift=False):
    for _ in range(60):
        page.key("Tab", shift=shift)
        if page.js(f"document.activeElement.matches({json.dumps(wanted)})"):
            return
    raise AssertionError(f"Tab does not lead to {wanted}")


@test
def the_keyboard_is_enough(world):
    page = world.open()
    page.reload()
    page.wait("document.activeElement.id === 'input'")
    tab_to(page, "#skip", shift=True)
    assert page.js("document.activeElement.id") == "skip" and page.js("document.activeElement.getBoundingClientRect().top > 0")
    page.key("Enter")
    assert page.js("document.activeElement.id") == "input"
    tab_to(page, "#settings-open", shift=True)
    page.key("Enter")
    tab_to(page, "#sampling-max_tokens")
    page.type("8")
    page.key("Enter")
    page.wait("!document.querySelector('#settings').open && document.activeElement.id === 'settings-open'")
    tab_to(page, "#input")
    page.key("Enter")
    assert page.texts(".message") == [], "nothing is not sent"
    page.type("One line")
    page.key("Enter", shift=True)
    page.type("and another")
    assert page.js("document.activeElement.value") == "One line\nand another"
    page.key("Enter")
    page.wait("document.querySelectorAll('.message').length === 2")
    finished(page)
    assert page.text(".message.user .body") == "One line\nand another"
    # Back to the message, edit it, and see where the focus is.
    tab_to(page, ".message.user .tools button:nth-child(2)", shift=True)
    assert page.js("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    page.key("Enter")
    page.type("!")
    page.key("Enter")
    page.wait("document.querySelector('.message.user .tools').textContent.includes('2 of 2')")
    finished(page)
    assert page.js("document.activeElement.id") == "input"
    tab_to(page, "#more-open", shift=True)
    page.key("Enter")
    tab_to(page, "#rename")
    page.key(" ")
    page.wait("document.querySelector('#ask').open")
    page.type("By keyboard")
    page.key("Enter")
    page.wait("document.querySelector('#title').textContent === 'By keyboard'")
    tab_to(page, "#theme", shift=True)
    page.key(" ")
    assert page.text("#theme") == "Theme: light"


@test
def a_screen_reader_hears_sentences_and_names(world):
    page = world.open(world.between.url)
    page.js("""window.heard = []; new MutationObserver((changes) => {
      for (const change of changes) for (const node of change.addedNodes) window.heard.push(node.textContent);
    }).observe(document.querySelector('#live'), { childList: true }); true""")
    sentences = ["The king was old.", "He had *three* sons!", "“Go,” said he, “and come back.”", "Nobody did"]
    world.between.faults.append(stream(*" ".join(sentences)))
    answered(page)
    assert page.js("window.heard") == [s.replace("*", "") for s in sentences], page.js("window.heard")
    assert page.js("document.querySelector('#live').getAttribute('aria-live')") == "polite"
    tree = page.send("Accessibility.getFullAXTree")["nodes"]
    roles = {}
    for node in tree:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "textbox", "list", "navigation", "radio", "dialog", "link"):
        assert all(roles.get(role, [])) or role == "list", f"a {role} without a name: {roles[role]}"
    assert roles["main"] and roles["navigation"] == ["Conversations"] and "Message" in roles["textbox"] and "Messages" in roles["list"], roles
    assert [level for level in page.js("[...document.querySelectorAll('h1, h2')].filter((h) => h.checkVisibility()).map((h) => h.tagName)")] == ["H1", "H2"]
    assert page.js("document.documentElement.lang") == "en"
    said = page.texts(".message > .unseen")
    assert said == ["You said:", "The model said:"], said


@test
def a_long_answer_follows_its_end_unless_one_reads(world):
    page = world.open(world.between.url)
    set_sampling(page, temperature=0, max_tokens=300)
    world.between.pause = 0.01
    world.between.faults.append(stream("a long beginning\n\n" * 60))
    answered(page, "First")
    end = "(() => { const s = document.querySelector('#scroll'); return s.scrollHeight - s.scrollTop - s.clientHeight; })()"
    assert page.js(end) < 2
    ask(page, "Then")
    page.wait(f"document.querySelector({json.dumps(ANSWER)})?.textContent.length > 60")
    assert page.js(end) < 80
    page.js("document.querySelector('#scroll').scrollTop = 0")
    page.wait("document.querySelector('#latest').checkVisibility()")
    length = page.js(f"document.querySelector({json.dumps(ANSWER)}).textContent.length")
    page.wait(f"document.querySelector('#stop').hidden || document.querySelector({json.dumps(ANSWER)}).textContent.length > {length}")
    assert page.js("document.querySelector('#scroll').scrollTop") == 0, "who reads is not moved"
    page.click("#latest")
    assert page.js(end) < 80
