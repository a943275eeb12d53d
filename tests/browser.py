"""Drive HTML pages in headless Chromium, where it is installed."""

import base64
import json
import os
import select
import shlex
import shutil
import subprocess
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

# Scrolls to an element, waits until it is at the same place in three frames, listens for a click on it.
PLACE_AT_REST = """async node => {
  node.scrollIntoView({ block: 'center', behavior: 'instant' });
  const box = () => { const b = node.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; };
  let found = box();
  for (let same = 0; same < 3;) {
    await new Promise(requestAnimationFrame);
    same = `${box()}` === `${found}` ? same + 1 : 0;
    found = box();
  }
  window.clicked = false;
  addEventListener('click', event => { if (node.contains(event.target)) window.clicked = true; },
    { capture: true, once: true });
  return found;
}"""


class Browser:
    """Chromium that is driven with real clicks and keys, over the pipe of its debugging protocol.

    https://chromedevtools.github.io/devtools-protocol/

    Attributes:
        requests: the addresses that pages have asked for, except data URLs.
        errors: what pages have thrown or written to the console as errors.
    """

    def __init__(self, profile, *flags):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        command = [CHROMIUM, *FLAGS.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", *flags]
        pipes = f"exec {shlex.join(command)} about:blank 3<&{to_read} 4>&{to_write}"
        self._process = subprocess.Popen(
            ["bash", "-c", pipes], pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer, self._number, self._session = b"", 0, None
        self.requests, self.errors, self._events = [], [], []
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        target = {"targetId": page["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **target)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        os.close(self._write)  # it ends when its pipe is closed
        self._process.wait(30)
        os.close(self._read)

    def call(self, method, **parameters):
        """Calls a method of the protocol; returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            assert time.monotonic() < deadline, (method, "the browser does not answer")
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]

    def _receive(self):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], 60)
            assert ready, "the browser does not answer"
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(text)
        method, values = answer.get("method"), answer.get("params", {})
        if method == "Network.requestWillBeSent" and not values["request"]["url"].startswith("data:"):
            self.requests.append(values["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = values["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and values["entry"]["level"] == "error":
            self.errors.append(values["entry"]["text"])
        elif method in ("Page.loadEventFired", "Page.javascriptDialogOpening"):
            self._events.append(method)
        return answer

    def window(self, width, height=900, theme="light", media=""):
        """Sets the size of the window, the color scheme and the medium, such as `print`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, address):
        """Opens an address and waits until it is loaded."""
        self._events.clear()
        self.call("Page.navigate", url="about:blank")
        self._wait_for_load()
        self._events.clear()
        self.requests.clear()
        self.errors.clear()
        self.call("Page.navigate", url=address)
        self._wait_for_load()

    def _wait_for_load(self):
        deadline = time.monotonic() + 60
        while "Page.loadEventFired" not in self._events:
            assert time.monotonic() < deadline, "the page is not loaded"
            self._receive()
            assert "Page.javascriptDialogOpening" not in self._events, "a script of the page runs"

    def evaluate(self, expression):
        """The value of a JavaScript expression; a promise is awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def overflow(self, width):
        """By how many pixels the page is wider than a window of this width, so that it scrolls sideways."""
        self.window(width)
        return self.evaluate("document.documentElement.scrollWidth") - width

    def text(self, selector):
        """The visible text of the first element that a CSS selector finds."""
        return self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText")

    def count(self, selector):
        """How many elements a CSS selector finds."""
        return self.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def click(self, selector, x=0.5, y=0.5):
        """Clicks an element at a place given as shares of its width and height.

        A picture that is still being decoded moves what is below it. So the click waits for the element to
        rest, and is repeated if the element did not get it.
        """
        for _ in range(10):
            box = self.evaluate(f"({PLACE_AT_REST})(document.querySelector({json.dumps(selector)}))")
            place = {"x": box[0] + x * box[2], "y": box[1] + y * box[3]}
            for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
            if self.evaluate("clicked"):
                return
        raise AssertionError(f"{selector} cannot be clicked")

    def enter(self, selector, value, event="input"):
        """Gives a field or a list a value, and tells the page of it."""
        self.evaluate(
            f"(field => {{ field.focus(); field.value = {json.dumps(value)}; "
            f"field.dispatchEvent(new Event('{event}')); }})(document.querySelector({json.dumps(selector)}))"
        )

    def press(self, *keys):
        """Presses keys, by their names in JavaScript: `Tab`, `Enter`, `ArrowRight`."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39,
                 "ArrowDown": 40, "Home": 36, "End": 35}  # fmt: skip
        for key in keys:
            values = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **values, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self, path, whole=True):
        """Saves a picture of the window, or of the whole page."""
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {
                "clip": {
                    "x": 0,
                    "y": 0,
                    "width": size["width"],
                    "height": min(size["height"], 9000),
                    "scale": 1,
                }
            }
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)
        path.write_bytes(base64.b64decode(picture["data"]))
