"""A page in a real Chromium without a window, looked at and touched as a person would.

It is spoken to in the Chrome DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from tests.wire import wait_until

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,1000", "--remote-debugging-port=0")
TIMEOUT_S = 60


def find_program() -> str | None:
    """The first of `PROGRAMS` that is installed."""
    return next((found for program in PROGRAMS if (found := shutil.which(program))), None)


@dataclass(frozen=True)
class Chromium:
    """A running browser, which takes commands at an address."""

    url: str

    @contextmanager
    def tab(self) -> Iterator["Browser"]:
        """A new tab in front of all others, closed when the block is left; it shares no session with another."""
        tab = httpx.put(f"{self.url}/json/new?about:blank", timeout=TIMEOUT_S).json()
        try:
            with connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
                yield Browser(socket)
        finally:
            httpx.get(f"{self.url}/json/close/{tab['id']}", timeout=TIMEOUT_S)


@contextmanager
def start_chromium(folder: Path) -> Iterator[Chromium]:
    """A browser that keeps all it has in a folder, and ends with the block."""
    program = find_program()
    assert program is not None
    command = [program, *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            port_file = folder / "DevToolsActivePort"
            wait_until(lambda: port_file.exists() and "\n" in port_file.read_text())
            yield Chromium(f"http://127.0.0.1:{port_file.read_text().split()[0]}")
        finally:
            process.terminate()


class Browser:
    """One page.

    Attributes:
        faults: what its console has told of errors: scripts that failed, or that the page's policy forbids.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.faults: list[str] = []
        self._socket = socket
        self._number = 0
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self._call("Page.bringToFront")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        wait_until(lambda: bool(self.run("document.readyState === 'complete'")))

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=True)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What is to be read there; nothing where it is hidden."""
        return str(self.run(f"document.querySelector({selector!r}).innerText"))

    def is_shown(self, selector: str) -> bool:
        return bool(self.run(f"document.querySelector({selector!r}).getClientRects().length"))

    def click(self, selector: str) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **self._middle_of(selector))

    def type(self, text: str) -> None:
        """Into whatever has the focus."""
        self._call("Input.insertText", text=text)

    def drop(self, file: Path, selector: str) -> None:
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self._call("Input.dispatchDragEvent", type=kind, data=data, **self._middle_of(selector))

    def _middle_of(self, selector: str) -> dict[str, float]:
        script = "(box => ({x: box.x + box.width / 2, y: box.y + box.height / 2}))"
        middle: dict[str, float] = self.run(f"{script}(document.querySelector({selector!r}).getBoundingClientRect())")
        return middle

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(TIMEOUT_S))
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, event: dict[str, Any]) -> None:
        entry = event.get("params", {}).get("entry", {})
        if event.get("method") == "Runtime.exceptionThrown" or (
            entry.get("level") == "error" and entry["source"] != "network"  # a 401 is an error to it
        ):
            self.faults.append(json.dumps(event["params"]))
