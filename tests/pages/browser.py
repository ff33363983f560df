"""Headless Chromium over its debugging pipe: open a page, press keys, ask the page, and say what it loaded and complained about."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PLACES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
PATIENCE = 60.0  # seconds for one answer


def chromium() -> str | None:
    """The browser's program, or None."""
    return next((path for name in PLACES if (path := shutil.which(name))), None)


class Browser:
    """One page of one browser; commands and answers are lines of JSON that end with a null byte."""

    def __init__(self, profile: Path):
        commands, answers = os.pipe(), os.pipe()
        theirs = tuple(fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (commands[0], answers[1]))  # none of them 3 or 4 already
        start = f"import os, sys; os.dup2({theirs[0]}, 3); os.dup2({theirs[1]}, 4); os.execv(sys.argv[1], sys.argv[1:])"
        program = [sys.executable, "-c", start, chromium() or "", *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        silent = subprocess.DEVNULL
        self.process = subprocess.Popen(program, pass_fds=theirs, stdin=silent, stdout=silent, stderr=silent)
        for end in (commands[0], answers[1], *theirs):
            os.close(end)
        self.commands, self.answers, self.left, self.number, self.session = commands[1], answers[0], b"", 0, None
        self.loads = 0
        self.loaded: list[str] = []
        self.complaints: list[str] = []
        target = next(one for one in self("Target.getTargets")["targetInfos"] if one["type"] == "page")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **values: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": values} | ({"sessionId": self.session} if self.session else {})
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        return self.until(lambda said: said.get("id") == self.number)["result"]

    def until(self, wanted: Any) -> dict[str, Any]:
        """Read until a message is the one that is wanted; note what was loaded and what went wrong."""
        end = time.monotonic() + PATIENCE
        while True:
            while b"\0" not in self.left:
                ready, _, _ = select.select([self.answers], [], [], max(0.0, end - time.monotonic()))
                assert ready, "the browser does not answer"
                self.left += os.read(self.answers, 1 << 20)
            line, _, self.left = self.left.partition(b"\0")
            said = json.loads(line)
            method, values = said.get("method", ""), said.get("params", {})
            if method == "Network.requestWillBeSent":
                self.loaded.append(values["request"]["url"])
            elif method == "Runtime.exceptionThrown" or method == "Log.entryAdded" or method == "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(values)[:500])
            self.loads += method == "Page.loadEventFired"
            if wanted(said):
                assert "error" not in said, said
                return said

    def open(self, address: str) -> None:
        """Go to an address and wait until it is loaded."""
        before = self.loads  # the event may come before the answer
        self("Page.navigate", url=address)
        if self.loads == before:
            self.until(lambda said: self.loads > before)

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)  # works where scripts of pages are disabled, too
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press one of the keys that act."""
        known = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        text = {"Enter": "\r", " ": " "}.get(key)
        self("Input.dispatchKeyEvent", type="keyDown", **known, **({"text": text} if text else {}))
        self("Input.dispatchKeyEvent", type="keyUp", **known)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self("Input.insertText", text=text)

    def size(self, width: int, height: int = 800) -> None:
        """The size of the window, in pixels of the page."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def picture(self, path: Path) -> None:
        """Write the visible part of the page as PNG."""
        path.write_bytes(base64.b64decode(self("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """End this browser."""
        os.write(self.commands, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        os.close(self.commands)
        self.process.wait(PATIENCE)
        os.close(self.answers)
