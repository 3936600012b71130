"""A wire to an HTTP server, which counts what passes and can be disturbed."""

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
DEADLINE_S = 60  # generous: the machine may be busy


class Wire:
    """A TCP proxy on loopback.

    Attributes:
        url: of this end.
        requests: first lines of what was asked so far, such as `GET /bucket/key`.
        cut_after_bytes: an answer's bytes after which each of the next `num_cuts` connections breaks.
        num_busy: so many requests from now are answered with 503.
        flow: while it is not set, no connection passes on more than `stall_after_bytes` of answers.
    """

    def __init__(self, url: str) -> None:
        target = urlsplit(url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self.requests: list[str] = []
        self.num_cuts = 0
        self.cut_after_bytes = 0
        self.num_busy = 0
        self.stall_after_bytes = 0
        self.flow = threading.Event()
        self.flow.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.flow.set()
        self._listener.close()

    def count(self, pattern: str) -> int:
        """Requests so far whose first line matches."""
        return sum(re.search(pattern, line) is not None for line in self.requests)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._target) as server:
            back = threading.Thread(target=self._answer, args=(server, client), daemon=True)
            back.start()
            while data := client.recv(1 << 16):  # small requests: each comes in one piece
                self.requests += [line.decode() for line in re.findall(rb"(?m)^(?:GET|HEAD) [^ ?]+", data)]
                if self.num_busy:
                    self.num_busy -= 1
                    client.sendall(BUSY)
                    return
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            back.join()

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        passed_bytes = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 12):
                passed_bytes += len(data)
                if self.num_cuts and passed_bytes > self.cut_after_bytes:
                    self.num_cuts -= 1
                    break
                if passed_bytes > self.stall_after_bytes:
                    self.flow.wait()
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens soon, or fail."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
