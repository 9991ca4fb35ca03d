"""Drives headless Chromium over its DevTools protocol, through a pipe: no driver, no package and no open port.

A `Browser` has one `Page` at a time. A page records each request that it makes and each error that it reports.
"""

import base64
import fcntl
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
import time

PATIENCE = 60  # Seconds that anything awaited may take, on a machine that is busy with other things.


class Browser:
    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="trit-page-")
        # The browser reads commands from descriptor 3 and writes answers to descriptor 4. Ours are moved out of the way first.
        (commands_out, commands_in), (answers_out, answers_in) = os.pipe(), os.pipe()
        child_reads, child_writes = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (commands_out, answers_in))
        os.close(commands_out)
        os.close(answers_in)

        def place():
            os.dup2(child_reads, 3)
            os.dup2(child_writes, 4)

        self.log = open(os.path.join(self.profile, "log"), "wb")
        self.process = subprocess.Popen(
            [
                program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps",
                "--disable-dev-shm-usage", "--disable-extensions", "--hide-scrollbars", "--force-color-profile=srgb",
                "--remote-debugging-pipe", f"--user-data-dir={self.profile}/data", "about:blank",
            ],
            preexec_fn=place, pass_fds=(3, 4), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        os.close(child_reads)
        os.close(child_writes)
        self.commands = os.fdopen(commands_in, "wb", buffering=0)
        self.answers = os.fdopen(answers_out, "rb", buffering=0)
        self.messages = queue.Queue()
        self.number = 0
        self.listeners = {}
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        held = b""
        while block := self.answers.read(1 << 16):
            *whole, held = (held + block).split(b"\0")
            for message in whole:
                self.messages.put(json.loads(message))
        self.messages.put(None)

    def _take(self, until):
        """Handles the next message; the message, or None when `until` has come."""
        try:
            message = self.messages.get(timeout=max(0, until - time.monotonic()))
        except queue.Empty:
            return None
        if message is None:
            with open(self.log.name, "rb") as log:
                raise AssertionError("the browser ended: " + log.read()[-2000:].decode(errors="replace"))
        if "method" in message and message.get("sessionId") in self.listeners:
            self.listeners[message["sessionId"]](message["method"], message["params"])
        return message

    def send(self, method, session=None, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        self.commands.write(json.dumps(message).encode() + b"\0")
        number, until = self.number, time.monotonic() + PATIENCE
        while time.monotonic() < until:
            answer = self._take(until)
            if answer and answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']['message']}")
                return answer["result"]
        raise AssertionError(f"{method} was not answered")

    def pump(self, seconds):
        """Handles what comes in this time."""
        until = time.monotonic() + seconds
        while self._take(until) is not None:
            pass

    def close(self):
        try:
            self.send("Browser.close")
        except (AssertionError, OSError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        shutil.rmtree(self.profile, ignore_errors=True)

    def page(self, width=1180, height=800, scale=1, touch=False):
        return Page(self, width, height, scale, touch)


class Page:
    """A tab of a profile of its own, so that nothing is left over from an earlier one."""

    def __init__(self, browser, width, height, scale, touch):
        self.browser = browser
        self.requests, self.errors = {}, []
        self.context = browser.send("Target.createBrowserContext")["browserContextId"]
        self.target = browser.send("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        browser.listeners[self.session] = self._event
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=touch)
        if touch:
            self.send("Emulation.setTouchEmulationEnabled", enabled=True)
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)

    def close(self):
        self.browser.listeners.pop(self.session)
        self.browser.send("Target.disposeBrowserContext", browserContextId=self.context)

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def _event(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests[params["requestId"]] = params["request"]["url"]
        elif method == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            # It never left the browser.
            self.requests.pop(params["requestId"])
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(f"console: {params['args']}")
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            entry = params["entry"]
            self.errors.append(f"{entry['source']}: {entry['text']} {entry.get('url', '')}")

    # ---- what a person does

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def reload(self):
        self.js("window.isOld = true")
        self.send("Page.reload")
        self.wait("!window.isOld && document.readyState === 'complete'")

    def type(self, text):
        self.send("Input.insertText", text=text)

    def key(self, key, shift=False, ctrl=False):
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, " ": 32, "Backspace": 8, "ArrowRight": 39, "ArrowDown": 40, "End": 35}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        params = {"key": key, "code": {" ": "Space"}.get(key, key), "windowsVirtualKeyCode": codes[key],
                  "modifiers": 8 * shift + 2 * ctrl}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **params)
        self.send("Input.dispatchKeyEvent", type="keyUp", **params)

    def click(self, selector):
        """Clicks in the middle of what is visible there, as a person would: what covers it gets the click."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.wait(f"{element} && {element}.checkVisibility()")
        self.js(f"{element}.scrollIntoView({{block: 'nearest'}})")
        x, y = self.js(f"(() => {{ const r = {element}.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()")
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    # ---- what a person sees

    def js(self, expression):
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    def wait(self, expression):
        """Waits until an expression is true."""
        self.wait_for(f"!!({expression})")

    def wait_for(self, expression):
        """Waits until an expression, or what it promises, is `true`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            try:
                if self.js(expression) is True:
                    return
            except AssertionError as error:
                # The page is being replaced.
                if "context" not in str(error):
                    raise
            self.browser.pump(0.03)
        shown = self.js("document.body.innerText")[-1500:]
        raise AssertionError(f"never came: {expression}\nthe page shows:\n{shown}\nerrors: {self.errors}")

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? null")

    def texts(self, selector):
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((node) => node.textContent)")

    def color(self, scheme):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path):
        # Once more after the next picture, so that what was just changed is on it.
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        data = self.send("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
