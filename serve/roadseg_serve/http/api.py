"""The HTTP contract: routes, limits, and every error as problem+json. It knows neither Ray nor pixels."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

from fastapi import FastAPI, Query, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive

from roadseg_serve.errors import (
    BadUploadError,
    MissingFileError,
    ModelUnavailableError,
    OverloadedError,
    RequestError,
)
from roadseg_serve.http.gate import put_gate
from roadseg_serve.http.headers import page_policy
from roadseg_serve.http.negotiate import negotiate
from roadseg_serve.http.openapi import (
    DESCRIPTION,
    complete_description,
    example_response,
    fault_response,
    problem_responses,
    status_responses,
    upload_body,
    upload_responses,
)
from roadseg_serve.http.problem import answer_http_exception, refuse_parameters
from roadseg_serve.http.stream import Streams
from roadseg_serve.messages import Answer, AnswerOptions, Format, ModelName
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.observe.status import Status
from roadseg_serve.settings import BackpressureConfig, GateArgs
from roadseg_serve.stages.findings import complete
from roadseg_serve.stages.preprocess import upload_too_large

WEB = Path(__file__).parent / "web"

# A multipart form is a little longer than its file: boundaries, part headers, the file's name.
FORM_ALLOWANCE_BYTES = 64 * 1024

FORMAT_DESCRIPTION = """Before what `Accept` says.

* `jpeg`: the mask, 8-bit grey JPEG
* `png`: the mask, 8-bit grey PNG without loss
* `probability`: of road, 8-bit grey PNG; 255 is surely road
* `overlay`: the picture with its road coloured, JPEG
* `json`: road share, size, threshold, model, timings, request id, and the mask as PNG and run lengths
"""

# The steps of Answer.times_s, in their order.
STEPS = ("decode", "resize", "queue", "infer", "encode")

# Limits beside an alternative that is not described would not be described either.
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

FormatQuery = Annotated[Format | SkipJsonSchema[None], Query(alias="format", description=FORMAT_DESCRIPTION)]
ThresholdQuery = Annotated[
    Threshold | SkipJsonSchema[None],
    Query(description="Road is where the probability reaches it; the server's own where it is left out."),
]


class Health(BaseModel):
    """Answer of GET /health."""

    status: str
    model: str
    version: str


@dataclass(frozen=True)
class Service:
    """What the routes stand on.

    Attributes:
        segment: uploaded bytes and a wish to the answer; raises RequestError.
        probe: which model answers now; raises ModelUnavailableError.
        manifest: of the model being served.
        max_upload_bytes: longer uploads are refused while they arrive.
        note_refusal: hears of every request that is refused.
        backpressure: what is answered where too much waits.
        gate: what every request passes before the routes.
        streams: the conversations of `WS /stream`.
        status: what the whole server is doing; raises ModelUnavailableError.
    """

    segment: Callable[[bytes, AnswerOptions], Awaitable[Answer]]
    probe: Callable[[], Awaitable[ModelName]]
    manifest: Manifest
    max_upload_bytes: int
    note_refusal: Callable[[RequestError], None]
    backpressure: BackpressureConfig
    gate: GateArgs
    streams: Streams
    status: Callable[[], Awaitable[Status]]


def create_api(service: Service) -> FastAPI:
    """The web application over `service`.

    Raises:
        KeysError: the API keys cannot be read, or there are none.
    """
    manifest = service.manifest
    busy_status = HTTPStatus(service.backpressure.status_code)
    # The page at /docs brings its own scripts, so that it works without the internet.
    api = FastAPIOffline(
        redoc_url=None,
        title="roadseg",
        version=f"{manifest.name}/{manifest.version}",
        summary="Road segmentation as a service",
        description=DESCRIPTION,
        responses=fault_response(),
        # The spans of `trace` stand where those of FastAPI would, which do not know Ray's.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    describe = api.openapi
    api.openapi = lambda: complete_description(describe(), manifest)  # type: ignore[method-assign]  # FastAPI's own way

    api.add_exception_handler(HTTPException, answer_http_exception)
    api.add_exception_handler(RequestValidationError, refuse_parameters)
    api.add_exception_handler(WebSocketRequestValidationError, refuse_parameters)
    put_gate(api, service.gate, service.backpressure, service.note_refusal)

    @api.post(
        "/upload",
        summary="Find the road in a picture",
        response_class=Response,
        responses=upload_responses(manifest, busy_status),
        openapi_extra={"requestBody": upload_body()},
    )
    async def upload(request: Request, form: FormatQuery = None, threshold: ThresholdQuery = None) -> Response:
        """Send a picture in the multipart field `file`; get its road, by default as an 8-bit grey JPEG of its size.

        In that JPEG 255 is road and 0 is not; read it with the threshold 128. Without `format`, the header `Accept`
        chooses between `image/jpeg`, `image/png` and `application/json`.

            curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
            curl -F file=@road.png 'http://localhost:5000/upload?format=json&threshold=0.7'
        """
        started_s = time.perf_counter()
        wish = AnswerOptions(form or negotiate(", ".join(request.headers.getlist("accept"))), threshold)
        answer = await service.segment(await receive_file(request, service.max_upload_bytes), wish)
        answer = complete(answer, request.state.request_id)
        request.state.answer = answer  # for the log
        total_s = time.perf_counter() - started_s
        return Response(answer.body, media_type=answer.media_type, headers=_answer_headers(answer, total_s))

    @api.websocket("/stream")
    async def stream(socket: WebSocket, form: FormatQuery = None, threshold: ThresholdQuery = None) -> None:
        wish = AnswerOptions(form or Format.JPEG, threshold)
        await service.streams.converse(
            socket.receive, socket.send, wish, socket.state.request_id, socket.scope.get("subprotocols", [])
        )

    health_example = {"status": "ok", "model": manifest.name, "version": manifest.version}

    @api.get(
        "/health",
        summary="Does a model answer?",
        responses=example_response("A model has just answered.", health_example)
        | problem_responses(ModelUnavailableError, OverloadedError, busy_status=busy_status),
    )
    async def health() -> Health:
        """200 only when a model has just answered."""
        model = await service.probe()
        return Health(status="ok", model=model.name, version=model.version)

    @api.get(
        "/v1/model",
        summary="The model being served",
        response_description="Its manifest.",
        response_model_exclude_unset=True,
    )
    async def model() -> Manifest:
        """The manifest of the model being served: how it was made and what was measured."""
        return manifest

    @api.get(
        "/v1/status",
        summary="What the whole server is doing",
        response_description="Rates, quantiles and counts of the last minute, of all replicas on all nodes.",
        responses=status_responses(),
    )
    async def status() -> Status:
        """What the page /status shows: rates, latency by step, queues, replicas, refusals.

        Of all replicas on all nodes, whichever of them answers. It is watched from the first request on, for as long as
        there are such requests: rates are null, and counts empty, until a quarter of a minute has been seen. Figures
        are up to ten seconds old.
        """
        return await service.status()

    @api.get("/status", summary="The page of the status", response_class=HTMLResponse)
    async def status_page() -> HTMLResponse:
        """A page that shows /v1/status as it changes."""
        return _page("status.html")

    @api.get("/", summary="The web page", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """A page to drop pictures in."""
        return _page("index.html")

    return api


def _page(name: str) -> HTMLResponse:
    text = (WEB / name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": page_policy(text)})


async def receive_file(request: Request, max_upload_bytes: int) -> bytes:
    """Read the multipart field `file`, never more of the body than the limit allows.

    Args:
        request: with the body still to come.
        max_upload_bytes: of the file; the form around it may add `FORM_ALLOWANCE_BYTES`.

    Raises:
        UploadTooLargeError: the body announces or has more bytes.
        BadUploadError: the body is not a readable form.
        MissingFileError: the form has no such file.
    """
    max_body_bytes = max_upload_bytes + FORM_ALLOWANCE_BYTES
    announced_bytes = request.headers.get("content-length", "")
    if announced_bytes.isdecimal() and int(announced_bytes) > max_body_bytes:
        raise upload_too_large(max_upload_bytes)
    counted = Request(request.scope, _counted(request.receive, max_body_bytes, max_upload_bytes))
    try:
        async with counted.form(max_files=1) as form:
            file = form.get("file")
            if isinstance(file, UploadFile):
                return await file.read()
    except ClientDisconnect as error:  # no fault of ours, and nobody hears the answer
        raise BadUploadError("The connection ended before the form did. Send all of it.") from error
    except HTTPException as error:  # how Starlette reports a form that it cannot parse
        raise BadUploadError(
            f"The form cannot be read ({error.detail}). Send one file: curl -F file=@road.png <url>/upload"
        ) from error
    raise MissingFileError(
        "The form has no file in the field 'file'. Send multipart/form-data: curl -F file=@road.png <url>/upload"
    )


def _counted(receive: Receive, max_body_bytes: int, max_upload_bytes: int) -> Receive:
    """`receive` that stops with UploadTooLargeError once the body is longer than the limit."""
    received_bytes = 0

    async def receive_counted() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > max_body_bytes:
            raise upload_too_large(max_upload_bytes)
        return message

    return receive_counted


def _answer_headers(answer: Answer, total_s: float) -> dict[str, str]:
    """What an answer says beside its body; times in milliseconds."""
    times_s = {step: answer.times_s[step] for step in STEPS if step in answer.times_s} | {"total": total_s}
    return {
        "X-Model-Name": answer.model.name,
        "X-Model-Version": answer.model.version,
        "X-Road-Share": f"{answer.road_share:.6f}",
        "Server-Timing": ", ".join(f"{step};dur={time_s * 1000:.3f}" for step, time_s in times_s.items()),
        "Vary": "Accept",
    }
