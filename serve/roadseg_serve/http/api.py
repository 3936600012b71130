"""The routes. They stand on a `Pipeline`, and know neither Ray nor pixels."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, Query, WebSocket
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import HTMLResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from pydantic.json_schema import SkipJsonSchema
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from roadseg_serve.errors import BadUploadError, MissingFileError, ModelUnavailableError, OverloadedError, RequestError
from roadseg_serve.http import openapi
from roadseg_serve.http.headers import page_policy
from roadseg_serve.http.keys import read_keys
from roadseg_serve.http.middleware import middleware
from roadseg_serve.http.negotiate import negotiate
from roadseg_serve.http.problem import answer_http_exception, refuse_parameters
from roadseg_serve.http.stream import Streams
from roadseg_serve.messages import AnswerOptions, Format
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.observe.status import Status
from roadseg_serve.settings import AppArgs
from roadseg_serve.stages.findings import complete
from roadseg_serve.stages.pipeline import Pipeline
from roadseg_serve.stages.preprocess import upload_too_large

WEB = Path(__file__).parent / "web"

# A multipart form is slightly longer than its file: boundaries, part headers, the file name.
FORM_ALLOWANCE_BYTES = 64 * 1024

FORMAT_DESCRIPTION = """Takes precedence over `Accept`.

* `jpeg`: the mask as 8-bit grey JPEG
* `png`: the mask as 8-bit grey PNG, lossless
* `probability`: the probability of road as 8-bit grey PNG; 255 is certainly road
* `overlay`: the picture with its road coloured, as JPEG
* `json`: road share, size, threshold, model, timings, request id, and the mask as PNG and as run lengths
"""

# The steps of Answer.times_s, in the order in which they are shown.
STEPS = ("decode", "resize", "queue", "infer", "encode")

# FastAPI describes the limits only if they are not inside the union with None.
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

FormatQuery = Annotated[Format | SkipJsonSchema[None], Query(alias="format", description=FORMAT_DESCRIPTION)]
ThresholdQuery = Annotated[
    Threshold | SkipJsonSchema[None],
    Query(description="Pixels with at least this probability are road. Default: the server's own threshold."),
]


class Health(BaseModel):
    """Answer of GET /health."""

    status: Literal["ok"] = "ok"
    model: str = Field(examples=["road-small"])
    version: str = Field(examples=["1"])


def create_api(
    pipeline: Pipeline,
    manifest: Manifest,
    args: AppArgs,
    *,
    streams: Streams,
    server_status: Callable[[], Awaitable[Status]],
    note_refusal: Callable[[RequestError], None],
) -> FastAPI:
    """The web application.

    `note_refusal` is called with every RequestError; `server_status` may raise ModelUnavailableError.

    Raises:
        KeysError: the API keys cannot be read, or there are none.
    """
    busy_status = args.backpressure_config.status_code
    keys = read_keys(args.gate)
    # FastAPIOffline serves the scripts of /docs itself, so that the page works without the internet.
    api = FastAPIOffline(
        redoc_url=None,
        title="roadseg",
        version=f"{manifest.name}/{manifest.version}",
        summary="Road segmentation as a service",
        description=openapi.DESCRIPTION,
        responses=openapi.fault_response(),
        middleware=middleware(args, keys, note_refusal),
        exception_handlers={
            HTTPException: answer_http_exception,
            RequestValidationError: refuse_parameters,
            WebSocketRequestValidationError: refuse_parameters,
        },
        # FastAPI's own spans would not be connected with Ray's; `observe.trace` makes them.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    describe = api.openapi
    api.openapi = lambda: openapi.complete_description(  # type: ignore[method-assign]  # the way FastAPI documents
        describe(), manifest, needs_key=keys is not None
    )

    @api.post(
        "/upload",
        summary="Find the road in a picture",
        response_class=Response,
        responses=openapi.upload_responses(manifest, busy_status),
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": openapi.FORM}}},
    )
    async def upload(request: Request, form: FormatQuery = None, threshold: ThresholdQuery = None) -> Response:
        """Send a picture in the multipart field `file`; get its road mask, by default an 8-bit grey JPEG of its size.

        In that JPEG, pixels from 128 on are road. Without `format`, the header `Accept` chooses between `image/jpeg`,
        `image/png` and `application/json`.

            curl -F file=@road.png http://localhost:5000/upload -o mask.jpg
            curl -F file=@road.png 'http://localhost:5000/upload?format=json&threshold=0.7'
        """
        started_s = time.perf_counter()
        options = AnswerOptions(form or negotiate(", ".join(request.headers.getlist("accept"))), threshold)
        data = await receive_file(request, args.max_upload_bytes)
        answer = complete(await pipeline.segment(data, options), request.state.request_id)
        request.state.answer = answer  # for the log
        times_s = {step: answer.times_s[step] for step in STEPS if step in answer.times_s}
        times_s["total"] = time.perf_counter() - started_s
        headers = {
            "X-Model-Name": answer.model.name,
            "X-Model-Version": answer.model.version,
            "X-Road-Share": f"{answer.road_share:.6f}",
            "Server-Timing": ", ".join(f"{step};dur={time_s * 1000:.3f}" for step, time_s in times_s.items()),
            "Vary": "Accept",
        }
        return Response(answer.body, media_type=answer.media_type, headers=headers)

    @api.websocket("/stream")
    async def stream(socket: WebSocket, form: FormatQuery = None, threshold: ThresholdQuery = None) -> None:
        options = AnswerOptions(form or Format.JPEG, threshold)
        await streams.converse(
            socket.receive, socket.send, options, socket.state.request_id, socket.scope.get("subprotocols", [])
        )

    @api.get(
        "/health",
        summary="Does the model answer?",
        response_description="The model has just answered.",
        responses=openapi.problem_responses(ModelUnavailableError, OverloadedError, busy_status=busy_status),
    )
    async def health() -> Health:
        """Runs the model once on a tiny picture; 200 if it answers."""
        model = await pipeline.probe()
        return Health(model=model.name, version=model.version)

    @api.get(
        "/v1/model",
        summary="The model that is served",
        response_description="Its manifest.",
        response_model_exclude_unset=True,
    )
    async def model() -> Manifest:
        """The manifest of the model: how it was trained and how well it did."""
        return manifest

    @api.get(
        "/v1/status",
        summary="The state of the whole server",
        response_description="Rates, quantiles and counts over the last minute, for all replicas on all nodes.",
        responses=openapi.problem_responses(ModelUnavailableError),
    )
    async def status() -> Status:
        """The figures of the page /status: rates, latency by step, queues, replicas, refusals.

        They cover all replicas on all nodes and are up to ten seconds old. The server collects them only while somebody
        asks for them: for the first 15 seconds, rates are null and counts empty.
        """
        return await server_status()

    @api.get("/status", summary="The status page", response_class=HTMLResponse)
    async def status_page() -> HTMLResponse:
        """A page that shows /v1/status live."""
        return _page("status.html")

    @api.get("/", summary="The web page", response_class=HTMLResponse)
    async def page() -> HTMLResponse:
        """A page to drop pictures on."""
        return _page("index.html")

    return api


def _page(name: str) -> HTMLResponse:
    text = (WEB / name).read_text(encoding="utf-8")
    return HTMLResponse(text, headers={"Content-Security-Policy": page_policy(text)})


async def receive_file(request: Request, max_upload_bytes: int) -> bytes:
    """Read the multipart field `file`, and never more of the body than the limit allows.

    The form may be longer than the file by `FORM_ALLOWANCE_BYTES`.

    Raises:
        UploadTooLargeError: the body has, or announces, more bytes.
        BadUploadError: the body is not a readable form.
        MissingFileError: the form has no such field, or it is not a file.
    """
    max_body_bytes = max_upload_bytes + FORM_ALLOWANCE_BYTES
    announced_bytes = request.headers.get("content-length", "")
    if announced_bytes.isdecimal() and int(announced_bytes) > max_body_bytes:
        raise upload_too_large(max_upload_bytes)
    received_bytes = 0

    async def receive_counted() -> Message:
        nonlocal received_bytes
        message = await request.receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > max_body_bytes:
            raise upload_too_large(max_upload_bytes)
        return message

    try:
        async with Request(request.scope, receive_counted).form(max_files=1) as form:
            file = form.get("file")
            if isinstance(file, UploadFile):
                return await file.read()
    except ClientDisconnect as error:  # not a bug of ours; nobody gets the answer
        raise BadUploadError("The connection closed before the form was complete. Send the whole form.") from error
    except HTTPException as error:  # raised by Starlette for a form that it cannot parse
        raise BadUploadError(
            f"The form cannot be read ({error.detail}). Send one file: curl -F file=@road.png <url>/upload"
        ) from error
    raise MissingFileError(
        "The form has no file in the field 'file'. Send multipart/form-data: curl -F file=@road.png <url>/upload"
    )
