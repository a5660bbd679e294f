"""A headless Chromium that opens a page, looks at it, and says what it asked for.

It is driven over the DevTools protocol through a pipe: no port, no package.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleets import PATIENCE

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Nothing may leave this machine, not even to look for updates.
_ARGUMENTS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-default-apps", "--disable-extensions", "--no-default-browser-check",
    "--no-proxy-server", "--hide-scrollbars", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def _pipe() -> tuple[int, int]:
    """Its descriptors are above those that the protocol needs in the child."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


class BrowserError(Exception):
    """The browser refused a call, or a script of a test failed in the page."""


class Browser:
    """One page. Not thread-safe."""

    def __init__(self, program: str, profile: Path):
        ours, theirs = _pipe(), _pipe()
        # The protocol is spoken over descriptors 3 and 4; a plain shell can name no others above 9.
        command = f'exec "$0" "$@" 3</proc/self/fd/{theirs[0]} 4>/proc/self/fd/{ours[1]}'
        arguments = [*_ARGUMENTS, f"--user-data-dir={profile}"]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command, program, *arguments], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(theirs[0], ours[1]),
            start_new_session=True)
        os.close(theirs[0])
        os.close(ours[1])
        self._read, self._write = ours[0], theirs[1]
        self._pending = b""
        self._last_id = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline - time.monotonic())
            assert answer is not None, f"the browser did not answer {method}"
            if answer.get("id") != self._last_id:
                self.events.append(answer)
            elif "error" in answer:
                raise BrowserError(f"{method}: {answer['error']['message']}")
            else:
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, timeout: float) -> dict[str, Any] | None:
        deadline = time.monotonic() + timeout
        while b"\0" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                return None
            read = os.read(self._read, 1 << 16)
            if not read:
                raise BrowserError("the browser has ended")
            self._pending += read
        line, self._pending = self._pending.split(b"\0", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    # --- What a person does.

    def look(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Sets the size of the window and the colours that its owner prefers."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce"}])

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def press(self, key: str) -> None:
        codes = {"Tab": 9}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode=codes[key])

    def point_at(self, selector: str) -> None:
        """Moves the pointer to the middle of an element, which is scrolled into view."""
        x, y = self.evaluate(f"""(() => {{
            const node = document.querySelector({json.dumps(selector)});
            node.scrollIntoView({{block: "center"}});
            const box = node.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()""")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    # --- What it sees.

    def evaluate(self, script: str) -> Any:
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(json.dumps(result["exceptionDetails"].get("exception")))
        return result["result"].get("value")

    def await_that(self, script: str, what: str, timeout: float = PATIENCE) -> None:
        """Until the expression is true in the page."""
        deadline = time.monotonic() + timeout
        while not self.evaluate(f"Boolean({script})"):
            assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
            self.wait_for_event(0.02)

    def wait_for_event(self, seconds: float) -> None:
        event = self._receive(seconds)
        if event is not None:
            self.events.append(event)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        return list(self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].map(it => it.innerText)"))

    def screenshot(self, path: Path) -> None:
        """The whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def requests(self) -> list[str]:
        """URLs that the page asked for, in order."""
        self.evaluate("0")  # what was sent before this is known
        return [event["params"]["request"]["url"] for event in self.events
                if event.get("method") == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """Errors of scripts and of the console, refusals by the policy among them."""
        self.evaluate("0")
        return [json.dumps(event["params"]) for event in self.events if _complains(event)]

    def close(self) -> None:
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(5)
        except (AssertionError, BrowserError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._read)
        os.close(self._write)


def _complains(event: dict[str, Any]) -> bool:
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Runtime.exceptionThrown":
        return True
    if method == "Runtime.consoleAPICalled":
        return parameters["type"] in ("error", "assert", "warning")
    return method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning")


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Browser]:
    it = Browser(program, profile)
    try:
        yield it
    finally:
        it.close()
