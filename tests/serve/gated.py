"""The routes with settings of the test's choice, over a pipeline written by hand."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
from fastapi import FastAPI
from starlette.types import ASGIApp, Message

from roadseg_serve.errors import RequestError
from roadseg_serve.http.api import create_api
from roadseg_serve.http.stream import Streams
from roadseg_serve.messages import Answer, AnswerOptions, ModelName
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.observe.status import Status
from roadseg_serve.settings import AppArgs, BackpressureConfig, GateArgs
from tests.red import red_manifest

MODEL = ModelName("red", "1")
MAX_UPLOAD_BYTES = 1000
Segment = Callable[[bytes, AnswerOptions], Awaitable[Answer]]
UPLOAD: dict[str, Any] = {"files": {"file": ("road.png", b"picture")}}


async def echo(data: bytes, _options: AnswerOptions) -> Answer:
    return Answer(b"mask of " + data, "image/jpeg", MODEL, 0.5, {"decode": 0.0021, "infer": 0.0304})


async def answering() -> ModelName:
    return MODEL


async def watched() -> Status:
    quiet: dict[str, Any] = {name: [] for name in ("models", "deployments", "problems")}
    return Status(
        time_s=1.0,
        window_s=0.0,
        pictures_per_s=None,
        requests={},
        failed_share=None,
        latency_ms={},
        batch_size=None,
        refusals={},
        **quiet,
    )


class HandPipeline:
    """A `Pipeline` of two functions."""

    def __init__(self, segment: Segment, probe: Callable[[], Awaitable[ModelName]]) -> None:
        self._segment = segment
        self._probe = probe

    async def segment(self, data: bytes, options: AnswerOptions) -> Answer:
        return await self._segment(data, options)

    async def probe(self) -> ModelName:
        return await self._probe()


def api_of(
    gate: GateArgs | None = None,
    segment: Segment = echo,
    *,
    probe: Callable[[], Awaitable[ModelName]] = answering,
    manifest: Manifest | None = None,
    max_upload_bytes: int = MAX_UPLOAD_BYTES,
    backpressure: BackpressureConfig | None = None,
    note_refusal: Callable[[RequestError], None] = lambda _error: None,
) -> FastAPI:
    red = Manifest.model_validate_json(json.dumps(red_manifest({"model.onnx": b"x", "model.pt2": b"x"})))
    args = AppArgs(
        max_upload_bytes=max_upload_bytes,
        gate=gate or GateArgs(),
        backpressure_config=backpressure or BackpressureConfig(),
    )
    streams = Streams(segment, max_frame_bytes=MAX_UPLOAD_BYTES, max_streams=1, note_refusal=note_refusal)
    pipeline = HandPipeline(segment, probe)
    return create_api(
        pipeline, manifest or red, args, streams=streams, server_status=watched, note_refusal=note_refusal
    )


def ask(api: ASGIApp, method: str, path: str, peer: str = "192.0.2.1", **options: Any) -> httpx.Response:
    """One request, from a client at the address `peer`."""

    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(api, client=(peer, 12345))
        async with httpx.AsyncClient(transport=transport, base_url="http://roadseg") as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def open_socket(
    api: ASGIApp, path: str, extensions: dict[str, Any], *frames: bytes, subprotocols: Sequence[str] = ()
) -> list[Message]:
    """What a WebSocket client is told that opens one, sends some frames, and goes away."""
    sent = []
    received: list[Message] = [{"type": "websocket.connect"}]
    received += [{"type": "websocket.receive", "bytes": frame} for frame in frames]
    received += [{"type": "websocket.disconnect", "code": 1001}]

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": path,
        "headers": [],
        "query_string": b"",
        "client": ("192.0.2.1", 12345),
        "extensions": extensions,
        "subprotocols": list(subprotocols),
    }

    async def once() -> None:
        await api(scope, receive, send)

    asyncio.run(once())
    return sent
