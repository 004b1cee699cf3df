"""Headless Chromium for tests of pages, driven by the few commands of WebDriver that are needed."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

from waiting import HANG

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# Bokeh draws inside shadow trees; gives what `what` makes of our page's <main>, or null while there is none.
IN_PAGE = """
const find = (root) => root.querySelector("main") ?? [...root.querySelectorAll("*")]
  .map((one) => one.shadowRoot && find(one.shadowRoot)).find((one) => one);
const main = find(document); return main ? (%s)(main) : null;
"""
_http = build_opener(ProxyHandler({})).open


class Browser:
    """One window; `profile` is an empty folder."""

    def __init__(self, driver: str, chromium: str, profile: Path):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._base = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL)
        try:
            self._wait_until_ready()
            options = {"binary": chromium, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            session = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._base += f"/session/{session['sessionId']}"
        except BaseException:
            self._end()
            raise

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + HANG
        while True:
            try:
                if self._call("GET", "/status")["ready"]:
                    return
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.1)

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if method == "POST" else None
        with _http(Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)) as answer:
            return json.load(answer)["value"]

    def open(self, url: str, width: int = 1400, height: int = 1000) -> None:
        self._call("POST", "/window/rect", {"width": width, "height": height})
        self._call("POST", "/url", {"url": url})

    def script(self, code: str) -> Any:
        return self._call("POST", "/execute/sync", {"script": code, "args": []})

    def prefer(self, scheme: str) -> None:
        """Have pages see that their reader prefers 'dark' or 'light'."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        command = {"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}}
        self._call("POST", "/goog/cdp/execute", command)

    def page(self, what: str) -> Any:
        return self.script(IN_PAGE % what)

    def text(self) -> str:
        """All of our page, as it is read."""
        return str(self.page("(main) => main.innerText"))

    def errors(self) -> list[Any]:
        return [line for line in self._call("POST", "/se/log", {"type": "browser"}) if line["level"] == "SEVERE"]

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("GET", "/screenshot")))
        assert path.stat().st_size > 5_000

    def close(self) -> None:
        try:
            self._call("DELETE", "")
        finally:
            self._end()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(20)
