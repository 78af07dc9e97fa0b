"""A headless Chromium for tests, driven by chromedriver's WebDriver protocol over plain HTTP."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
CHROMEDRIVER = shutil.which("chromedriver")


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, path: Path) -> None:
        """Loads a file and waits until it is there."""
        self.visit(path.resolve().as_uri())

    def visit(self, address: str) -> None:
        """Loads an address and waits until it is there."""
        _call("POST", f"{self._session}/url", {"url": address})

    def run(self, script: str, *arguments: object) -> Any:
        """What a function body in JavaScript returns; it may await."""
        body = {"script": f"return (async () => {{ {script} }})()", "args": list(arguments)}
        return _call("POST", f"{self._session}/execute/sync", body)

    def devtools(self, command: str, **parameters: object) -> Any:
        """A command of the DevTools protocol."""
        return _call("POST", f"{self._session}/goog/cdp/execute", {"cmd": command, "params": parameters})

    def look(self, width: int, dark: bool = False, height: int = 900) -> None:
        """Width of the window in CSS pixels and the theme that the reader prefers."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=features)

    def log(self) -> list[str]:
        """What the console was told since the last call: errors, refused resources."""
        return [entry["message"] for entry in _call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        """A picture of the whole page."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Starts chromedriver and a window of its own; ends both."""
    assert CHROMIUM and CHROMEDRIVER
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen([CHROMEDRIVER, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    server = f"http://127.0.0.1:{port}"
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}"]
    capabilities = {
        "goog:chromeOptions": {"binary": CHROMIUM, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL"},
    }
    session = None
    try:
        _wait(server, driver)
        answer = _call("POST", f"{server}/session", {"capabilities": {"alwaysMatch": capabilities}})
        session = f"{server}/session/{answer['sessionId']}"
        yield Browser(session)
    finally:
        try:
            if session is not None:
                _call("DELETE", session)
        finally:
            driver.terminate()
            driver.wait(10)


def _wait(server: str, driver: "subprocess.Popen[bytes]") -> None:
    for _ in range(100):
        try:
            if _call("GET", f"{server}/status")["ready"]:
                return
        except OSError:
            assert driver.poll() is None, "chromedriver ended"
        time.sleep(0.1)
    raise AssertionError("chromedriver did not become ready")


def _call(method: str, url: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # no proxy between this process and its own child
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise AssertionError(json.load(error)["value"]["message"]) from None
