"""Headless Chromium, driven over a pipe by its DevTools protocol: standard library only."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

NAME = next((n for n in ("chromium", "chromium-browser", "google-chrome") if shutil.which(n)), None)
PATIENCE = 900  # seconds for an answer: the machine may be busy


class Browser:
    """One page.  `said` holds what reached its console and what it raised, `fetched` every address
    that it asked for."""

    def __init__(self, profile: Path) -> None:
        down, self._write = os.pipe()
        self._read, up = os.pipe()
        # the browser reads commands from descriptor 3 and answers on 4
        shell = f'exec "$@" 3<&{down} 4>&{up}'
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
            "--no-first-run", "--disable-extensions", "--disable-background-networking",
            "--disable-dev-shm-usage", "--hide-scrollbars", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(shutil.which(str(NAME))), *flags, "about:blank"],
            pass_fds=(down, up),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(down)
        os.close(up)
        self._count, self._rest, self._session = 0, b"", None
        self.messages: list[str] = []
        self.fetched: list[str] = []
        pages = self.ask("Target.getTargets")["targetInfos"]
        page = next(p["targetId"] for p in pages if p["type"] == "page")
        answer = self.ask("Target.attachToTarget", targetId=page, flatten=True)
        self._session = answer["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params):
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        wanted = self._count
        while True:
            got = self._next()
            if got.get("id") == wanted:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]

    def _next(self):
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(until - time.monotonic(), 0))[0]:
                raise TimeoutError(f"{NAME} has not answered for {PATIENCE} s")
            more = os.read(self._read, 1 << 20)
            if not more:
                raise RuntimeError(f"{NAME} has ended")
            self._rest += more
        raw, _, self._rest = self._rest.partition(b"\0")
        got = json.loads(raw)
        self._note(got.get("method", ""), got.get("params", {}))
        return got

    def _note(self, method: str, params) -> None:
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.messages.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(a.get("value")) for a in params["args"]))
        elif method == "Log.entryAdded":
            self.messages.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.fetched.append(params["request"]["url"])
        elif method == "Page.javascriptDialogOpening":
            self.messages.append(f"dialog: {params['message']}")

    def open(self, path: Path, view: str = "") -> None:
        """Loads a file, then shows one of its views."""
        self.ask("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + PATIENCE
        while (
            self.run("document.readyState") != "complete"
            or self.run("location.protocol") != "file:"
        ):
            assert time.monotonic() < until, f"{path} does not load"
            time.sleep(0.02)
        self.show(view)

    def show(self, view: str) -> None:
        self.run(f"location.hash = {json.dumps(view)}; new Promise((r) => setTimeout(r, 0))")

    def run(self, script: str):
        """The value of an expression of the page; its exceptions are raised."""
        answer = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, "")
        code = {"Enter": 13, "Tab": 9, "Escape": 27}[key]
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **keys)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **keys)

    def look(self, scheme: str, width: int, height: int) -> None:
        """Light or dark, and the size of the window."""
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        try:
            self._session = None
            self.ask("Browser.close")
        except (RuntimeError, TimeoutError, OSError):
            self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)
