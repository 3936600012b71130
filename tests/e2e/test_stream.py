"""Live video over a WebSocket, against a running server whose road probability is red / 255."""

import asyncio
import io
import json
import os
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.e2e.conftest import MAX_UPLOAD_BYTES
from tests.server import Server

TIMEOUT_S = 60
MB = 1_000_000


def address(server: Server, query: str = "") -> str:
    return f"ws://127.0.0.1:{server.port}/stream{query}"


def frame(columns: int, size: tuple[int, int] = (160, 64), tail: bytes = b"") -> bytes:
    """A PNG whose first columns are road; decoders do not look at what comes after its end."""
    picture = Image.new("RGB", size)
    picture.paste((255, 0, 0), (0, 0, columns, size[1]))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue() + tail


def columns_of(body: str | bytes, size: tuple[int, int] = (160, 64)) -> int:
    """How many columns of the mask are road; all of it is looked at."""
    assert isinstance(body, bytes)
    road_HW = np.asarray(Image.open(io.BytesIO(body))) >= 128
    columns = int(road_HW[0].sum())
    assert road_HW.shape == (size[1], size[0])
    assert np.array_equal(road_HW, np.broadcast_to(np.arange(size[0]) < columns, road_HW.shape))
    return columns


def header(message: str | bytes) -> dict[str, Any]:
    assert isinstance(message, str)
    document: dict[str, Any] = json.loads(message)
    return document


def ask(stream: ClientConnection, data: bytes) -> tuple[dict[str, Any], str | bytes | None]:
    """One frame and its answer."""
    stream.send(data)
    about = header(stream.recv(TIMEOUT_S))
    body = None if "problem" in about else stream.recv(TIMEOUT_S)
    stream.send("next")
    return about, body


def close_code(stream: ClientConnection, message: str | bytes | None = None) -> int:
    """The code by which the server closes, after this message if there is one."""

    def go_on() -> None:
        if message is not None:
            stream.send(message)
        stream.recv(TIMEOUT_S)

    with pytest.raises(ConnectionClosed) as closed:
        go_on()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.reason
    return closed.value.rcvd.code


def test_masks_are_right_and_bad_frames_are_problems(server: Server) -> None:
    with connect(address(server)) as stream:
        for number, columns in enumerate((0, 16, 83, 160)):
            about, body = ask(stream, frame(columns))
            assert body is not None
            assert columns_of(body) == columns
            assert (about["frame"], about["skipped"], about["media_type"]) == (number, 0, "image/jpeg")
            assert about["model"] == {"name": "red", "version": "1"}
            assert about["road_share"] == columns / 160
            assert {"decode", "encode"} <= set(about["timings_ms"])
        bad = [(b"no picture", 415), (b"", 400), (frame(9)[:60], 400), (frame(0, (70_000, 8)), 413)]
        for number, (data, status) in enumerate(bad, start=4):
            about, _ = ask(stream, data)
            assert about["problem"]["status"] == status
            assert (about["frame"], about["skipped"]) == (number, 0)
        about, body = ask(stream, frame(50))
        assert about["frame"] == 8
        assert body is not None
        assert columns_of(body) == 50


def test_under_pressure_frames_are_skipped_and_the_last_is_always_answered(server: Server) -> None:
    num_frames, size = 150, (1600, 640)

    async def play() -> list[tuple[int, int, int]]:
        answers = []
        async with connect_async(address(server)) as stream:

            async def send_all() -> None:
                for number in range(num_frames):
                    await stream.send(frames[number])

            async with asyncio.timeout(TIMEOUT_S), asyncio.TaskGroup() as tasks:
                tasks.create_task(send_all())
                number = -1
                while number < num_frames - 1:
                    about = header(await stream.recv())
                    number = about["frame"]
                    answers.append((number, about["skipped"], columns_of(await stream.recv(), size)))
                    await stream.send("next")
        return answers

    frames = [frame(10 * number, size) for number in range(num_frames)]
    answers = asyncio.run(play())
    numbers = [number for number, _, _ in answers]
    assert numbers == sorted(set(numbers))
    assert len(answers) + sum(skipped for _, skipped, _ in answers) == num_frames
    assert sum(skipped for _, skipped, _ in answers) > 0
    # Each mask is of the frame that its answer names. Ten of these pixels are one of the model's.
    assert all(columns == 10 * number for number, _, columns in answers)


def test_who_does_not_read_costs_no_memory(server: Server) -> None:
    with connect(address(server), compression=None) as stream:
        data = frame(16, tail=os.urandom(MB))
        ask(stream, data)
        before_bytes = server.memory_bytes()
        num_frames = 250
        for _ in range(num_frames):
            stream.send(data)
            time.sleep(0.03)  # a camera's pace
        # Had they been kept anywhere, they would be 250 MB more.
        assert server.memory_bytes() - before_bytes < 120 * MB
        last, num_skipped = 0, 0
        while last < num_frames:
            about = header(stream.recv(TIMEOUT_S))
            last, num_skipped = about["frame"], num_skipped + about["skipped"]
            assert columns_of(stream.recv(TIMEOUT_S)) == 16
            stream.send("next")
        assert num_skipped > 200  # four answers wait for their reader; nothing else is worked on


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hello", 1003),
        ("next", 1002),
        (bytes(MAX_UPLOAD_BYTES + 1), 1009),
    ],
    ids=["text", "early next", "too long"],
)
def test_the_close_code_says_what_was_wrong(server: Server, message: str | bytes, code: int) -> None:
    with connect(address(server), compression=None) as stream:
        assert close_code(stream, message) == code
    with connect(address(server)) as stream:
        assert "problem" not in ask(stream, frame(9))[0]


def test_the_longest_frame_passes(server: Server) -> None:
    short = frame(40)
    with connect(address(server), compression=None) as stream:
        about, body = ask(stream, short + os.urandom(MAX_UPLOAD_BYTES - len(short)))
        assert body is not None, about
        assert columns_of(body) == 40


def test_a_longer_frame_than_uvicorn_takes_ends_the_stream_alone(server: Server) -> None:
    with connect(address(server), compression=None) as stream, pytest.raises(ConnectionClosed):
        # It closes while this is being sent, so that the reason may be lost.
        ask(stream, bytes(17 * 2**20))
    with connect(address(server)) as stream:
        assert "problem" not in ask(stream, frame(9))[0]


def test_the_query_is_honoured(server: Server) -> None:
    picture = Image.new("RGB", (160, 64), (100, 0, 0))  # a probability of 0.39
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    cases = {
        "": ("image/jpeg", 0),
        "?threshold=0.3": ("image/jpeg", 255),
        "?threshold=0.3&format=png": ("image/png", 255),
        "?format=probability": ("image/png", 100),
    }
    for query, (media_type, value) in cases.items():
        with connect(address(server, query)) as stream:
            about, body = ask(stream, buffer.getvalue())
            assert about["media_type"] == media_type
            assert isinstance(body, bytes)
            assert (np.asarray(Image.open(io.BytesIO(body))) == value).all()
    with connect(address(server, "?format=json"), additional_headers={"X-Request-ID": "mine"}) as stream:
        _, body = ask(stream, buffer.getvalue())
        assert isinstance(body, bytes)
        document = json.loads(body)
        assert (document["request_id"], document["width"]) == ("mine", 160)
        assert set(document["timings_ms"]) == {"decode", "resize", "queue", "infer", "encode"}


@pytest.mark.parametrize("query", ["?format=gif", "?threshold=2"])
def test_a_bad_query_is_a_problem_before_the_handshake(server: Server, query: str) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(address(server, query)):
        pass
    assert refused.value.response.status_code == 422
    assert json.loads(refused.value.response.body or b"")["type"] == "urn:roadseg:bad-parameter"
