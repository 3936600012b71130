"""Bodies that arrive too slowly, and work that takes too long."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError
from starlette.types import Message

from roadseg_serve.http.deadline import Deadline
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.settings import GateArgs
from tests.serve.gated import UPLOAD, api_of, ask, echo

MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
SHORT_S = 0.2


async def stalling() -> AsyncIterator[bytes]:
    yield HEAD
    await asyncio.sleep(3600)


async def dripping() -> AsyncIterator[bytes]:
    yield HEAD
    while True:  # never long without a byte
        await asyncio.sleep(SHORT_S / 10)
        yield b"x"


@pytest.mark.parametrize("body", [stalling, dripping])
def test_a_body_that_arrives_too_slowly_is_a_408(body: type[AsyncIterator[bytes]]) -> None:
    api = api_of(GateArgs(receive_timeout_s=SHORT_S))
    response = ask(api, "POST", "/upload", content=body(), headers=MULTIPART)
    assert response.status_code == 408
    assert response.json()["type"] == "urn:roadseg:receive-timeout"
    assert "0.2 s" in response.json()["detail"]
    assert response.headers["connection"] == "close"


def test_the_receive_timeout_ends_with_the_body() -> None:
    async def slow(data: bytes, options: AnswerOptions) -> Answer:
        await asyncio.sleep(2 * SHORT_S)
        return await echo(data, options)

    response = ask(api_of(GateArgs(receive_timeout_s=SHORT_S), slow), "POST", "/upload", **UPLOAD)
    assert response.content == b"mask of picture"


def test_work_that_takes_too_long_is_a_504_and_cancelled() -> None:
    ended = []

    async def endless(_data: bytes, _options: AnswerOptions) -> Answer:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        raise AssertionError

    response = ask(api_of(GateArgs(request_timeout_s=SHORT_S), endless), "POST", "/upload", **UPLOAD)
    assert response.status_code == 504
    assert response.json()["type"] == "urn:roadseg:request-timeout"
    assert ended == ["cancelled"]


def test_another_timeout_is_a_bug() -> None:
    async def fail(_data: bytes, _options: AnswerOptions) -> Answer:
        raise TimeoutError

    assert ask(api_of(segment=fail), "POST", "/upload", **UPLOAD).status_code == 500


def test_a_websocket_has_no_deadline() -> None:
    async def stay(_scope: object, receive: object, _send: object) -> None:
        await asyncio.sleep(2 * SHORT_S)
        assert receive is hear

    async def hear() -> Message:
        return {"type": "websocket.receive", "text": ""}

    async def say(_message: Message) -> None:
        pass

    asyncio.run(Deadline(stay, SHORT_S, SHORT_S)({"type": "websocket"}, hear, say))


@pytest.mark.parametrize("setting", ["receive_timeout_s", "request_timeout_s"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_timeout_of_zero_is_refused(setting: str, value: float) -> None:
    with pytest.raises(ValidationError):
        GateArgs.model_validate({setting: value})
