"""The parts of /openapi.json that FastAPI cannot derive; the examples come from the code that they describe."""

from collections.abc import Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import numpy as np

from roadseg_serve.errors import BadKeyError, OverloadedError, Problem, RequestError
from roadseg_serve.http.keys import OPEN_PATHS
from roadseg_serve.http.problem import FAULT, PROBLEM_JSON, ProblemDocument, problem_body
from roadseg_serve.messages import AnswerOptions, Format, ModelName, Placement, Prediction
from roadseg_serve.models.manifest import Manifest
from roadseg_serve.stages.findings import Reply, complete
from roadseg_serve.stages.postprocess import answer

Json = dict[str, Any]
Responses = dict[int | str, Json]

KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}

DESCRIPTION = """Send a picture of a street, get its road.

* Any still picture works: PNG, JPEG, WEBP, TIFF and more, in any mode and size. EXIF orientation is applied, only the
  first frame of an animation is used, and transparent parts become black.
* Masks have the size of the upright picture.
* Every error is `application/problem+json` (RFC 9457): `type` is the kind, `detail` says what to do.
* Every answer has an `X-Request-ID`: yours, or a new one.
* Live video uses the WebSocket `/stream?format=jpeg&threshold=0.5`, which OpenAPI cannot describe: send each frame as a
  binary message, receive a JSON text message and then the mask as a binary message, and send the text `next` after each
  answer. While the server is busy, only the newest frame waits; older ones are skipped.
"""


def _header(description: str, example: str | float, schema: Json | None = None) -> Json:
    return {"description": description, "required": True, "schema": schema or {"type": "string"}, "example": example}


EXAMPLE_TIMES_S = {"decode": 0.0081, "resize": 0.0024, "queue": 0.0007, "infer": 0.0413, "encode": 0.002}
EXAMPLE_REQUEST_ID = "9f86d081884c4d659a2feaa0c55ad015"
VARY = _header("The answer depends on Accept.", "Accept")
RETRY_AFTER = _header("Seconds to wait.", 1, {"type": "integer", "minimum": 0})
PROBLEM_HEADERS: dict[int, Json] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": _header("How to send a key.", "Bearer")},
    HTTPStatus.NOT_ACCEPTABLE: {"Vary": VARY},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": RETRY_AFTER},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": RETRY_AFTER},
}

# A road under a sky, 8 pixels wide and 6 high: how much of each pixel is road, in ninths.
EXAMPLE_ROAD_HW = (
    (0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 7, 6, 0, 0, 0),
    (0, 0, 2, 9, 9, 1, 0, 0),
    (0, 1, 8, 9, 9, 7, 0, 0),
    (0, 6, 9, 9, 9, 9, 5, 0),
)

# Plain PGM, a picture that is text: it can be shown in the description and sent as it is. The road is white.
EXAMPLE_PICTURE = "\n".join(["P2", "8 6", "9", *(" ".join(map(str, row)) for row in EXAMPLE_ROAD_HW), ""])

BINARY = {"type": "string", "format": "binary"}
FILE = BINARY | {"description": "The picture. Its file name and media type do not matter."}
FORM: Json = {
    "schema": {"type": "object", "required": ["file"], "properties": {"file": FILE}},
    "example": {"file": EXAMPLE_PICTURE},
}


def example_findings(manifest: Manifest) -> Json:
    """The JSON answer to `EXAMPLE_PICTURE` from a model that sees the road exactly as drawn."""
    prob_HW = (np.array(EXAMPLE_ROAD_HW) * 255 // 9).astype(np.uint8)
    placement = Placement(*prob_HW.shape, *prob_HW.shape)
    prediction = Prediction(prob_HW, placement, manifest.threshold, ModelName(manifest.name, manifest.version))
    made = replace(answer(prediction, AnswerOptions(Format.JSON), None, None), times_s=EXAMPLE_TIMES_S)
    return Reply.model_validate_json(complete(made, EXAMPLE_REQUEST_ID).body).model_dump(mode="json")


def upload_responses(manifest: Manifest, busy_status: int) -> Responses:
    """The answers of POST /upload, with examples for this model; `busy_status` is the answer to an overload."""
    answered = {
        "model": Reply,
        "description": "The road, in the requested format.",
        "content": {
            "image/jpeg": {"schema": BINARY},
            "image/png": {"schema": BINARY},
            "application/json": {"example": example_findings(manifest)},
        },
        "headers": {
            "X-Model-Name": _header("Model that answered.", manifest.name),
            "X-Model-Version": _header("Its version.", manifest.version),
            "X-Road-Share": _header(
                "Fraction of the pixels that are road.", 0.291667, {"type": "number", "minimum": 0, "maximum": 1}
            ),
            "Server-Timing": _header(
                "Milliseconds of each step: decode, resize, queue, infer, encode, and total.",
                "decode;dur=8.1, resize;dur=2.4, queue;dur=0.7, infer;dur=41.3, encode;dur=2.0, total;dur=57.9",
            ),
            "Vary": VARY,
        },
    }
    return {int(HTTPStatus.OK): answered} | problem_responses(*RequestError.__subclasses__(), busy_status=busy_status)


def problem_responses(*kinds: type[RequestError], busy_status: int = HTTPStatus.SERVICE_UNAVAILABLE) -> Responses:
    """The answers to these errors, by status."""
    by_status: dict[int, list[Problem]] = {}
    for kind in kinds:
        status = busy_status if kind is OverloadedError else kind.problem.status
        by_status.setdefault(status, []).append(replace(kind.problem, status=status))
    return {status: _problem_response(by_status[status]) for status in sorted(by_status)}


def fault_response() -> Responses:
    """The answer if the server has a bug."""
    return {FAULT.status: _problem_response([FAULT])}


def complete_description(document: Json, manifest: Manifest, *, needs_key: bool) -> Json:
    """Add to FastAPI's own document what it cannot express."""
    components = document["components"]
    components["schemas"]["Problem"] = ProblemDocument.model_json_schema()
    model = document["paths"]["/v1/model"]["get"]["responses"]["200"]["content"]["application/json"]
    # As an example in the model itself, FastAPI would lose it for its nulls.
    model["example"] = manifest.model_dump(mode="json", exclude_unset=True)
    if needs_key:
        components["securitySchemes"] = KEY_SCHEMES
        refusal = {str(status): body for status, body in problem_responses(BadKeyError).items()}
        guarded = [operations for path, operations in document["paths"].items() if path not in OPEN_PATHS]
        for operation in (operation for operations in guarded for operation in operations.values()):
            operation["security"] = [{name: []} for name in KEY_SCHEMES]
            operation["responses"] |= refusal
    return document


def _problem_response(problems: Sequence[Problem]) -> Json:
    """The answer to errors with the same status."""
    examples = {
        problem.kind or "fault": {
            "summary": problem.title,
            "value": problem_body(problem, problem.remedy, EXAMPLE_REQUEST_ID),
        }
        for problem in problems
    }
    response: Json = {
        "description": "; ".join(problem.title for problem in problems),
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples}},
    }
    if problems[0].status in PROBLEM_HEADERS:
        response["headers"] = PROBLEM_HEADERS[problems[0].status]
    return response
