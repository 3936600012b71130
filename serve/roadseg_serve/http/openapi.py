"""What /openapi.json says about bodies, answers and headers; its examples are made by the code that they describe."""

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np

from roadseg_serve.errors import (
    PROBLEM_JSON,
    PROBLEMS,
    ModelUnavailableError,
    OverloadedError,
    Problem,
    RequestError,
    bare_problem,
    problem_body,
)
from roadseg_serve.messages import AnswerOptions, Format, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.observe.status import DeploymentStatus, LoadedModel, Moment, Quantiles, Status
from roadseg_serve.stages.findings import Reply, complete
from roadseg_serve.stages.postprocess import answer

Json = dict[str, Any]
Responses = dict[int | str, Json]

PROBLEM_REFERENCE = {"$ref": "#/components/schemas/Problem"}
PROBLEM_SCHEMA: Json = {
    "title": "Problem",
    "description": "RFC 9457: what went wrong, and in `detail` what to do about it.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "request_id"],
    "properties": {
        "type": {
            "type": "string",
            "description": "The kind, a URN to branch on; about:blank says no more than status.",
        },
        "title": {"type": "string", "description": "The kind in a few words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
        "detail": {"type": "string", "description": "What happened this time, and what to do about it."},
        "request_id": {"type": "string", "description": "As in X-Request-ID; the server's log has it under this id."},
    },
}
FAULT_DETAIL = "This is a fault of the server, not of the request; its log has the details."

DESCRIPTION = """Send a picture of a street, get the road in it.

* The picture is any still picture: PNG, JPEG, WEBP, TIFF and more, of any mode and size. One with an EXIF orientation
  is turned upright first; of an animation the first frame counts; transparency lies on black.
* Every answer has the size of the upright picture.
* Every error is `application/problem+json` (RFC 9457): `type` names the kind, `detail` says what to do.
* Every answer has an `X-Request-ID`: the one that was sent, or a new one.
* Live video goes over the WebSocket `/stream?format=jpeg&threshold=0.5`, of which OpenAPI has no words: send each frame
  as a binary message, get a JSON text message and then the mask as a binary message, and send the text `next` after
  each answer. While the server is busy only the newest frame waits; older ones are skipped.
"""


def _header(description: str, example: str | float, schema: Json | None = None) -> Json:
    return {
        "description": description,
        "required": True,
        "schema": schema or {"type": "string"},
        "example": example,
    }


EXAMPLE_TIMES_S = {"decode": 0.0081, "resize": 0.0024, "queue": 0.0007, "infer": 0.0413, "encode": 0.002}
EXAMPLE_REQUEST_ID = "9f86d081884c4d659a2feaa0c55ad015"
VARY = _header("The answer depends on Accept.", "Accept")
RETRY_AFTER = _header("Seconds to wait.", 1, {"type": "integer", "minimum": 0})
PROBLEM_HEADERS: dict[HTTPStatus, Json] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": _header("How to send a key.", "Bearer")},
    HTTPStatus.NOT_ACCEPTABLE: {"Vary": VARY},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": RETRY_AFTER},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_AFTER},
}

# A road under a sky, 8 wide and 6 high: how much of the road is in each pixel, of 9.
EXAMPLE_ROAD_HW = (
    (0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 7, 6, 0, 0, 0),
    (0, 0, 2, 9, 9, 1, 0, 0),
    (0, 1, 8, 9, 9, 7, 0, 0),
    (0, 6, 9, 9, 9, 9, 5, 0),
)


def example_picture() -> str:
    """A picture that is text (plain PPM), so that it can stand in a description and be sent as it stands."""
    sky_rgb, meadow_rgb, road_rgb = (140, 180, 255), (60, 120, 40), (110, 110, 115)
    lines = [
        " ".join(
            str(value) for share in row for value in (road_rgb if share >= 5 else (meadow_rgb if y > 1 else sky_rgb))
        )
        for y, row in enumerate(EXAMPLE_ROAD_HW)
    ]
    return "\n".join(["P3", "8 6", "255", *lines, ""])


def example_findings(manifest: Manifest) -> Json:
    """The JSON answer to `example_picture`, had the model been sure of the road as it is drawn."""
    prob_HW = (np.array(EXAMPLE_ROAD_HW) * 255 // 9).astype(np.uint8)
    prediction = Prediction(
        prob_HW=prob_HW,
        placement=Placement(*prob_HW.shape, *prob_HW.shape),
        threshold=manifest.threshold,
        model=ModelName(manifest.name, manifest.version),
    )
    made = replace(answer(prediction, AnswerOptions(Format.JSON), None, None), times_s=EXAMPLE_TIMES_S)
    return Reply.model_validate_json(complete(made, EXAMPLE_REQUEST_ID).body).model_dump(mode="json")


def upload_body() -> Json:
    """The form of POST /upload."""
    file = {"type": "string", "format": "binary", "description": "The picture. Its name and type are not looked at."}
    form = {
        "schema": {"type": "object", "required": ["file"], "properties": {"file": file}},
        "example": {"file": example_picture()},
    }
    return {"required": True, "content": {"multipart/form-data": form}}


def upload_responses(manifest: Manifest, busy_status: HTTPStatus) -> Responses:
    """The answers of POST /upload.

    Args:
        manifest: of the model being served, for the examples.
        busy_status: of the answer where too much waits.
    """
    binary = {"type": "string", "format": "binary"}
    answered = {
        "model": Reply,
        "description": "The road, in the format that was asked for.",
        "content": {
            "image/jpeg": {"schema": binary},
            "image/png": {"schema": binary},
            "application/json": {"example": example_findings(manifest)},
        },
        "headers": {
            "X-Model-Name": _header("Model that found the road.", manifest.name),
            "X-Model-Version": _header("Its version.", manifest.version),
            "X-Road-Share": _header(
                "Share of the pixels that are road.", 0.291667, {"type": "number", "minimum": 0, "maximum": 1}
            ),
            "Server-Timing": _header(
                "Milliseconds of each step: decode, resize, queue, infer, encode, and total.",
                "decode;dur=8.1, resize;dur=2.4, queue;dur=0.7, infer;dur=41.3, encode;dur=2.0, total;dur=57.9",
            ),
            "Vary": VARY,
        },
    }
    return {int(HTTPStatus.OK): answered} | problem_responses(*PROBLEMS, busy_status=busy_status)


def status_responses() -> Responses:
    """The answers of GET /v1/status."""
    moment = Moment(time_s=1790000000.0, pictures_per_s=9.5, p95_ms=140.0, waiting=3, failed_share=0.01)
    stage = DeploymentStatus(name="Model", state="HEALTHY", target=2, replicas={"RUNNING": 2}, working=5, waiting=3)
    status = Status(
        time_s=1790000000.0,
        window_s=60.0,
        models=[LoadedModel(name="road-small", version="2", replicas=2)],
        pictures_per_s=9.5,
        requests={"200": 570, "415": 24, "503": 6},
        failed_share=0.01,
        latency_ms={"infer": Quantiles(p50=41.3, p95=70.0), "total": Quantiles(p50=60.2, p95=140.0)},
        batch_size=2.4,
        refusals={"not-an-image": 24, "overloaded": 6},
        deployments=[stage],
        problems=[],
        history=[moment],
    )
    return example_response("All that is known.", status.model_dump(mode="json")) | problem_responses(
        ModelUnavailableError
    )


def problem_responses(
    *kinds: type[RequestError], busy_status: HTTPStatus = HTTPStatus.SERVICE_UNAVAILABLE
) -> Responses:
    """The answers to these errors, by status."""
    by_status: dict[HTTPStatus, list[Problem]] = {}
    for kind in kinds:
        status = busy_status if kind is OverloadedError else PROBLEMS[kind].status
        by_status.setdefault(status, []).append(replace(PROBLEMS[kind], status=status))
    return {int(status): _problem_response(status, by_status[status]) for status in sorted(by_status)}


def fault_response() -> Responses:
    """The answer when the server itself is at fault."""
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    return {int(status): _problem_response(status, [bare_problem(status)], FAULT_DETAIL)}


def example_response(description: str, example: Json) -> Responses:
    """A JSON answer with an example."""
    return {int(HTTPStatus.OK): {"description": description, "content": {"application/json": {"example": example}}}}


def complete_description(document: Json, manifest: Manifest) -> Json:
    """Add what FastAPI has no place for: the schema of problems, and an example with a null in it."""
    document["components"]["schemas"]["Problem"] = PROBLEM_SCHEMA
    model = document["paths"]["/v1/model"]["get"]["responses"]["200"]["content"]["application/json"]
    model["example"] = manifest.model_dump(mode="json", exclude_unset=True)
    return document


def _problem_response(status: HTTPStatus, problems: Sequence[Problem], detail: str | None = None) -> Json:
    examples = {
        problem.type.rsplit(":", 1)[-1]: {
            "summary": problem.title,
            "value": problem_body(problem, detail or problem.remedy, EXAMPLE_REQUEST_ID),
        }
        for problem in problems
    }
    response: Json = {
        "description": "; ".join(problem.title for problem in problems),
        "content": {PROBLEM_JSON: {"schema": PROBLEM_REFERENCE, "examples": examples}},
    }
    if status in PROBLEM_HEADERS:
        response["headers"] = PROBLEM_HEADERS[status]
    return response
