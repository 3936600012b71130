"""Uploads to a small server of the test's own, which counts what comes."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from bench.load import Served, draw_road, file_of, request_of, upload_for, upload_times

PICTURE = file_of(draw_road(48, 36), "PNG")
TIMING = "decode;dur=1.5, infer;dur=20"


class Counting(ThreadingHTTPServer):
    """Answers every upload alike.

    Attributes:
        status: of the answers.
        bodies: of the uploads.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.status = 200
        self.bodies: Counter[bytes] = Counter()


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # so that the connection stays open
    server: Counting

    def do_POST(self) -> None:  # http.server's name
        self.server.bodies[self.rfile.read(int(self.headers["Content-Length"]))] += 1
        self.send_response(self.server.status)
        self.send_header("Server-Timing", TIMING)
        mask = bytes(300_000 if self.server.status == 200 else 0)  # more than is received at once
        self.send_header("Content-Length", str(len(mask)))
        self.end_headers()
        self.wfile.write(mask)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Counting]:
    with Counting() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_rate_is_answers_by_time() -> None:
    assert Served(num_answers=30, duration_s=4).rate == 7.5


def test_a_request_holds_the_picture() -> None:
    head, _, body = request_of(PICTURE).partition(b"\r\n\r\n")
    line, _, fields = head.partition(b"\r\n")
    assert line == b"POST /upload HTTP/1.1"
    message = message_from_bytes(fields + b"\r\n\r\n" + body, policy=policy.default)
    assert message["Content-Length"] == str(len(body))
    (part,) = message.iter_parts()
    assert part["Content-Disposition"].params["name"] == "file"
    assert part.get_payload(decode=True) == PICTURE


def test_so_many_uploads_are_made_and_pictures_take_turns(server: Counting) -> None:
    pictures = (b"one", b"another")
    served = upload_times(server.server_port, [request_of(data) for data in pictures], 3, 8)
    assert served.num_answers == 8
    assert served.stage_ms == [{"decode": 1.5, "infer": 20.0}] * 8
    bodies = [request_of(data).partition(b"\r\n\r\n")[2] for data in pictures]
    assert server.bodies == dict.fromkeys(bodies, 4)


def test_uploads_go_on_for_so_long_and_all_count(server: Counting) -> None:
    served = upload_for(server.server_port, [request_of(PICTURE)], 2, 0.05)
    assert served.duration_s >= 0.05
    assert served.num_answers == server.bodies.total() > 0


def test_an_answer_that_is_no_mask_ends_the_measurement(server: Counting) -> None:
    server.status = 503
    with pytest.raises(SystemExit, match="503"):
        upload_times(server.server_port, [request_of(PICTURE)], 1, 2)


def test_an_answer_that_breaks_off_ends_the_measurement() -> None:
    def break_off() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 18)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nmas")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=break_off)
        thread.start()
        with pytest.raises(SystemExit, match="in the middle"):
            upload_times(listener.getsockname()[1], [request_of(b"a")], 1, 1)
        thread.join()
