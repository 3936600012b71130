"""The HTTP contract: routes, limits, and every error as problem+json. It knows neither Ray nor pixels."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from roadseg_serve.artefact import Manifest
from roadseg_serve.errors import (
    PROBLEMS,
    BadUploadError,
    MissingFileError,
    OverloadedError,
    Problem,
    RequestError,
    problem_body,
    problem_of,
)
from roadseg_serve.messages import Answer, ModelName, Wish
from roadseg_serve.preprocess import upload_too_large
from roadseg_serve.settings import BackpressureConfig

PROBLEM_JSON = "application/problem+json"
PAGE = Path(__file__).parent / "web" / "index.html"

# A multipart form is a little longer than its file: boundaries, part headers, the file's name.
FORM_ALLOWANCE_BYTES = 64 * 1024

MODEL_NAME_HEADER = "X-Model-Name"
MODEL_VERSION_HEADER = "X-Model-Version"


class Health(BaseModel):
    """Answer of GET /health."""

    status: str
    model: str
    version: str


class ProblemBody(BaseModel):
    """RFC 9457 problem: what went wrong, and in `detail` what to do about it."""

    type: str
    title: str
    status: int
    detail: str


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
    """

    segment: Callable[[bytes, Wish], Awaitable[Answer]]
    probe: Callable[[], Awaitable[ModelName]]
    manifest: Manifest
    max_upload_bytes: int
    note_refusal: Callable[[RequestError], None]
    backpressure: BackpressureConfig


def create_api(service: Service) -> FastAPI:
    """The web application over `service`."""
    # The page at /docs brings its own scripts, so that it works without the internet.
    api = FastAPIOffline(
        redoc_url=None,
        title="roadseg",
        version=f"{service.manifest.name}/{service.manifest.version}",
        description="Road segmentation as a service: send a picture, get a mask of the road.",
    )

    async def answer_request_error(_request: Request, error: Exception) -> JSONResponse:
        # Ray hands on an error of another process with the error itself as `cause`.
        error = getattr(error, "cause", error)
        assert isinstance(error, RequestError)
        service.note_refusal(error)
        problem = problem_of(error)
        if isinstance(error, OverloadedError):
            problem = replace(problem, status=HTTPStatus(service.backpressure.status_code))
        busy = problem.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
        retry = {"Retry-After": str(service.backpressure.retry_after_s)} if busy else None
        return _answer(problem, str(error), retry)

    api.add_exception_handler(RequestError, answer_request_error)
    api.add_exception_handler(HTTPException, _answer_http_exception)
    api.add_exception_handler(RequestValidationError, _answer_validation_error)
    api.add_exception_handler(Exception, _answer_fault)

    @api.post(
        "/upload",
        summary="Segment a picture",
        response_class=Response,
        responses=_upload_responses(),
        openapi_extra={"requestBody": UPLOAD_BODY},
    )
    async def upload(request: Request) -> Response:
        """Send a picture in the multipart field `file`; get an 8-bit grey JPEG of its size: 255 road, 0 not.

        PNG, JPEG and most other raster formats, any mode and size. A picture with an EXIF orientation is
        turned upright first, and so is its mask. Read the mask with the threshold 128.
        """
        answer = await service.segment(await receive_file(request, service.max_upload_bytes), Wish())
        headers = {MODEL_NAME_HEADER: answer.model.name, MODEL_VERSION_HEADER: answer.model.version}
        return Response(answer.body, media_type=answer.media_type, headers=headers)

    @api.get("/health", summary="Does a model answer?", responses=_problems(HTTPStatus.SERVICE_UNAVAILABLE))
    async def health() -> Health:
        """200 only when a model has just answered."""
        model = await service.probe()
        return Health(status="ok", model=model.name, version=model.version)

    @api.get("/v1/model", summary="The model being served")
    async def model() -> Manifest:
        """The manifest of the model being served: how it was made and what was measured."""
        return service.manifest

    @api.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE.read_text(encoding="utf-8"))

    return api


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


def _answer(problem: Problem, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(problem_body(problem, detail), problem.status, headers=headers, media_type=PROBLEM_JSON)


async def _answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {error.detail}. The routes are described at /docs."
    return _answer(Problem(status, "about:blank", status.phrase), detail, dict(error.headers or {}))


async def _answer_validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
    status = HTTPStatus.UNPROCESSABLE_ENTITY
    return _answer(Problem(status, "about:blank", status.phrase), f"{faults}. See /docs.")


async def _answer_fault(_request: Request, _error: Exception) -> JSONResponse:
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    detail = "This is a fault of the server, not of the request; its log has the details."
    return _answer(Problem(status, "about:blank", status.phrase), detail)


UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "string", "format": "binary", "description": "The picture."}},
            }
        }
    },
}


def _upload_responses() -> dict[int | str, dict[str, Any]]:
    headers = {
        MODEL_NAME_HEADER: {"schema": {"type": "string"}, "description": "Model that made the mask."},
        MODEL_VERSION_HEADER: {"schema": {"type": "string"}, "description": "Its version."},
    }
    schema = {"type": "string", "format": "binary"}
    mask = {"description": "The mask.", "content": {"image/jpeg": {"schema": schema}}, "headers": headers}
    return {200: mask} | _problems(*(problem.status for problem in PROBLEMS.values()))


def _problems(*statuses: HTTPStatus) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses: which problems of the table answer with each status."""
    titles = {
        status: "; ".join(problem.title for problem in PROBLEMS.values() if problem.status == status)
        for status in sorted(set(statuses))
    }
    return {
        int(status): {
            "description": title,
            "content": {PROBLEM_JSON: {"schema": ProblemBody.model_json_schema()}},
        }
        for status, title in titles.items()
    }
