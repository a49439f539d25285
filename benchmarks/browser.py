"""A headless Chromium, driven over a pipe with nothing but the standard library: open a file, click, look.

Knows: the DevTools protocol as far as pages of ours need it. Refuses to know: any one page; the network (name look-ups
are switched off and files are all that is opened).
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")


def find() -> str | None:
    """The browser's path, None where there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of a headless Chromium. Use as a context manager.

    Attributes: ``messages``, what the page wrote to its console and every error and refusal in it.
    """

    def __init__(self, *, width: int = 1280, height: int = 900, dark: bool = False, timeout: float = 30.0) -> None:
        path = find()
        if path is None:
            raise RuntimeError(f"no browser; install one of {', '.join(NAMES)}")
        self._timeout = timeout
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.messages: list[str] = []
        self._profile = tempfile.TemporaryDirectory(prefix="icl-vision-browser-", ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        def pipes() -> None:  # the protocol's fixed numbers: 3 to read from, 4 to write to
            os.dup2(theirs_in, 103)
            os.dup2(theirs_out, 104)
            os.dup2(103, 3)
            os.dup2(104, 4)

        self._process = subprocess.Popen(
            [
                path,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-extensions",
                "--host-resolver-rules=MAP * ~NOTFOUND",
                "--remote-debugging-pipe",
                f"--user-data-dir={self._profile.name}",
                "about:blank",
            ],
            close_fds=False,
            preexec_fn=pipes,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            targets = self.call("Target.getTargets", session=False)["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            attached = self.call("Target.attachToTarget", {"targetId": page, "flatten": True}, session=False)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
            self.show(width, height, dark=dark)
        except BaseException:
            self.close()
            raise

    def show(self, width: int, height: int, *, dark: bool = False) -> None:
        """The size of the window (below 600 pixels a phone's) and the colours that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", {"features": scheme})

    def open(self, path: Path, fragment: str = "", ready: str = "document.readyState === 'complete'") -> float:
        """Open a file; gives the seconds until ``ready`` was true in it."""
        self.call("Page.navigate", {"url": "about:blank"})
        start = time.perf_counter()
        self.call("Page.navigate", {"url": path.resolve().as_uri() + fragment})
        self.wait(f"location.href.startsWith({json.dumps(path.resolve().as_uri())}) && ({ready})")
        return time.perf_counter() - start

    def wait(self, expression: str) -> None:
        """Until an expression is true in the page; RuntimeError after the timeout."""
        end = time.monotonic() + self._timeout
        # While a page is being left, half of it is there: what fails then is not true yet.
        while not self.run(f"(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()"):
            if time.monotonic() > end:
                raise RuntimeError(f"never true: {expression}; the page said {self.messages}")
            time.sleep(0.01)

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression (awaited where it is a promise)."""
        found = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", found["exceptionDetails"]))
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """A real click of the mouse on the middle of an element, scrolled into view first."""
        place = self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)});"
            " if (!node) return null; node.scrollIntoView({block: 'center', inline: 'center'});"
            " const box = node.getClientRects()[0];"
            " return [box.left + box.width / 2, box.top + box.height / 2]; })()"
        )
        if place is None:
            raise RuntimeError(f"nothing to click: {selector}")
        for kind in ("mousePressed", "mouseReleased"):
            spot = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", {"type": kind, **spot})

    def screenshot(self, target: Path, *, whole: bool = False) -> None:
        """The page as a PNG; ``whole``: all of it, not only what is in view."""
        found = self.call("Page.captureScreenshot", {"format": "png", "captureBeyondViewport": whole})
        target.write_bytes(base64.b64decode(found["data"]))

    def call(self, method: str, parameters: dict[str, Any] | None = None, *, session: bool = True) -> dict[str, Any]:
        """One call of the protocol; events that arrive meanwhile go to ``messages`` where they tell of trouble."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters or {}}
        if session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        method, given = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.messages.append(json.dumps(given["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.messages.append(given["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(argument.get("value")) for argument in given["args"]))
        elif method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("file:", "data:")):
            self.messages.append(f"asked for {given['request']['url'][:200]}")

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + self._timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, end - time.monotonic()))
            data = os.read(self._in, 1 << 20) if ready else b""
            if not data:
                raise RuntimeError("the browser does not answer" if not ready else "the browser is gone")
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def close(self) -> None:
        """End the browser and remove what it left."""
        for pipe in (self._out, self._in):
            os.close(pipe)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
