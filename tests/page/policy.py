"""What the page is sent with, what the browser then forbids, and what becomes of Markdown."""

import renderer
from world import test


@test
def it_is_sent_with_a_strict_policy(world):
    status, headers, body = world.server.ask("/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8", (status, headers)
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["connect-src"] == "'self'", policy
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'", policy
    for name in ("script-src", "style-src"):
        assert policy[name].startswith("'sha256-") and " " not in policy[name], policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    tag = headers["etag"]
    assert world.server.ask("/", if_none_match=f'"other", W/{tag}')[0] == 304
    assert world.server.ask("/", if_none_match='"other"')[0] == 200
    status, headers, nothing = world.server.ask("/", method="HEAD")
    assert (status, nothing) == (200, "") and headers["etag"] == tag and int(headers["content-length"]) == len(body.encode())


@test
def the_policy_holds_in_the_browser(world):
    page = world.open()
    world.expect("TrustedHTML", "Content Security Policy", "violates the following")
    assert page.js("(() => { try { document.body.innerHTML = '<b>x</b>'; return 'set'; } catch { return 'refused'; } })()") == "refused"
    elsewhere = world.between.url
    assert page.js(f"fetch('{elsewhere}/').then(() => 'sent', () => 'refused')") == "refused"
    page.js(f"const image = new Image(); image.src = '{elsewhere}/x.png'; document.body.append(image); true")
    page.js("const s = document.createElement('style'); s.textContent = 'body { display: none }'; document.head.append(s); true")
    page.browser.pump(0.3)
    assert page.js("getComputedStyle(document.body).display") == "grid"


@test
def markdown_becomes_the_right_elements(world):
    page = world.open()
    renderer.begin(page)
    renderer.cases_are_right(page)


@test
def markdown_is_the_same_however_it_arrives(world):
    page = world.open()
    renderer.begin(page)
    renderer.how_it_arrives_changes_nothing(page)


@test
def hostile_markdown_becomes_no_markup(world):
    page = world.open()
    renderer.begin(page)
    renderer.nothing_hostile_becomes_markup(page)


@test
def rendering_is_linear(world):
    page = world.open()
    renderer.begin(page)
    renderer.work_is_linear(page)
