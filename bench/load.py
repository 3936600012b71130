"""Pictures to upload and a fast client, shared by the serving benchmarks.

The client sends prepared bytes and reads as little as possible, to leave the CPU to the server on the same machine.
"""

import io
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

BOUNDARY = "roadseg-bench"
TIMEOUT_S = 120


def draw_road(width: int, height: int) -> Image.Image:
    """Draw a grey road that narrows towards the horizon, between green and sky, with camera noise; RGB."""
    picture = Image.new("RGB", (width, height), (150, 180, 220))
    draw = ImageDraw.Draw(picture)
    horizon = int(height * 0.45)
    draw.rectangle((0, horizon, width, height), fill=(70, 110, 60))
    road = [(width * 0.05, height), (width * 0.46, horizon), (width * 0.54, horizon), (width * 0.95, height)]
    draw.polygon(road, fill=(105, 105, 110))
    # Without noise, a PNG would be far smaller and decode faster than one from a camera.
    noise_HWC = np.random.default_rng(0).normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise_HWC, 0, 255).astype(np.uint8))


def file_of(picture: Image.Image, kind: str) -> bytes:
    """Encode a picture; `kind` is Pillow's name of the format."""
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return buffer.getvalue()


def request_of(data: bytes) -> bytes:
    """The bytes of a `POST /upload` request."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="road"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    lines = (
        "POST /upload HTTP/1.1",
        "Host: localhost",
        f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Served:
    """The result of one measurement.

    Attributes:
        num_answers: uploads answered with 200.
        duration_s: length of the measurement.
        stage_ms: the Server-Timing header of every answer, by stage.
    """

    num_answers: int = 0
    duration_s: float = 0.0
    stage_ms: list[dict[str, float]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Uploads per second."""
        return self.num_answers / self.duration_s


def upload_for(port: int, requests: Sequence[bytes], concurrency: int, seconds: float) -> Served:
    """Upload in a loop for some seconds, over `concurrency` connections that stay open.

    Raises:
        SystemExit: an answer was not 200.
    """
    started_s = time.perf_counter()
    deadline_s = started_s + seconds
    return _upload(port, requests, concurrency, lambda _done: time.perf_counter() < deadline_s)


def upload_times(port: int, requests: Sequence[bytes], concurrency: int, times: int) -> Served:
    """Like `upload_for`, for a number of uploads."""
    return _upload(port, requests, concurrency, lambda done: done < times)


def _upload(port: int, requests: Sequence[bytes], concurrency: int, goes_on: Callable[[int], bool]) -> Served:
    served, lock = Served(), threading.Lock()
    taken = 0

    def take() -> int | None:
        nonlocal taken
        with lock:
            if not goes_on(taken):
                return None
            taken += 1
            return taken

    def converse() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (number := take()) is not None:
                connection.sendall(requests[number % len(requests)])
                stage_ms = _read_answer(connection)
                with lock:
                    served.num_answers += 1
                    served.stage_ms.append(stage_ms)

    started_s = time.perf_counter()
    with ThreadPoolExecutor(concurrency) as pool:
        for conversation in [pool.submit(converse) for _ in range(concurrency)]:
            conversation.result()
    served.duration_s = time.perf_counter() - started_s
    return served


def _read_answer(connection: socket.socket) -> dict[str, float]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise SystemExit(f"/upload answered {head.decode()}")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if length is None:
        raise SystemExit(f"the response of /upload has no Content-Length: {head.decode()}")
    num_left = int(length[1]) - len(body)
    while num_left > 0:
        num_left -= len(_receive(connection))
    timing = re.search(r"(?i)\r\nserver-timing: *(.*)", head.decode())
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing[1])} if timing else {}


def _receive(connection: socket.socket) -> bytes:
    received = connection.recv(1 << 18)
    if not received:
        raise SystemExit("the server closed the connection in the middle of an answer")
    return received
