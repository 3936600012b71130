"""The HTTP contract over a pipeline written by hand; no Ray, no model."""

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from PIL import Image

from roadseg_serve.errors import BadUploadError, ModelUnavailableError, RequestError
from roadseg_serve.http.api import FORM_ALLOWANCE_BYTES
from roadseg_serve.messages import MEDIA_TYPES, Answer, AnswerOptions, Format, ModelName
from roadseg_serve.models import artefact
from tests.serve.gated import MAX_UPLOAD_BYTES, api_of

MODEL = ModelName("red", "1")


async def echo(data: bytes, options: AnswerOptions) -> Answer:
    return Answer(
        body=b"mask of " + data,
        media_type=MEDIA_TYPES[options.format],
        model=MODEL,
        road_share=0.5,
        times_s={"queue": 0.0007, "encode": 0.002, "decode": 0.00812},
    )


@pytest.fixture
def service(red_artefact: Path) -> dict[str, Any]:
    """The arguments of `api_of`."""
    return {"segment": echo, "manifest": artefact.read(red_artefact).manifest}


def client_of(service: dict[str, Any]) -> httpx.AsyncClient:
    # As a real server does: an exception of ours becomes an answer, not a crash of the client.
    transport = httpx.ASGITransport(api_of(**service), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://roadseg")


def ask(service: dict[str, Any], method: str, path: str, **options: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client_of(service) as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def problem(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "request_id"}
    assert body["status"] == response.status_code
    assert body["detail"]
    return response.status_code, body["type"]


def test_upload_answers_with_the_mask_and_its_model(service: dict[str, Any]) -> None:
    response = ask(service, "POST", "/upload", files={"file": ("road.png", b"picture", "image/png")})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    assert response.content == b"mask of picture"
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("red", "1")
    assert response.headers["x-road-share"] == "0.500000"
    assert response.headers["vary"] == "Accept"


def test_server_timing_has_the_steps_in_order_and_the_total(service: dict[str, Any]) -> None:
    timing = ask(service, "POST", "/upload", files={"file": b"x"}).headers["server-timing"]
    steps, total = timing.rsplit(", ", 1)
    assert steps == "decode;dur=8.120, queue;dur=0.700, encode;dur=2.000"
    assert re.fullmatch(r"total;dur=\d+\.\d{3}", total)


def options_of(service: dict[str, Any], query: str = "", accept: str | None = "*/*") -> AnswerOptions:
    """What the graph is asked for."""
    asked: list[AnswerOptions] = []

    async def note(data: bytes, options: AnswerOptions) -> Answer:
        asked.append(options)
        return await echo(data, options)

    request = httpx.Request("POST", f"http://roadseg/upload{query}", files={"file": b"x"})
    if accept is not None:
        request.headers["accept"] = accept

    async def once() -> httpx.Response:
        async with client_of(service | {"segment": note}) as client:
            return await client.send(request)

    response = asyncio.run(once())
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPES[asked[0].format]
    return asked[0]


@pytest.mark.parametrize(
    ("query", "accept", "options"),
    [
        ("", None, AnswerOptions()),
        ("", "*/*", AnswerOptions()),
        ("", "image/png", AnswerOptions(Format.PNG)),
        ("", "application/json", AnswerOptions(Format.JSON)),
        # `format` goes before Accept, even before one that nothing satisfies.
        ("?format=jpeg", "image/png", AnswerOptions()),
        ("?format=overlay", "image/png", AnswerOptions(Format.OVERLAY)),
        ("?format=probability", "text/plain", AnswerOptions(Format.PROBABILITY)),
        ("?threshold=0.25", None, AnswerOptions(threshold=0.25)),
        ("?threshold=0", None, AnswerOptions(threshold=0.0)),
        ("?threshold=1&format=json", None, AnswerOptions(Format.JSON, 1.0)),
        ("?colour=red", None, AnswerOptions()),  # what we do not know is not ours
    ],
)
def test_format_accept_and_threshold_become_options(
    service: dict[str, Any], query: str, accept: str | None, options: AnswerOptions
) -> None:
    assert options_of(service, query, accept) == options


def test_several_accept_headers_count_as_one(service: dict[str, Any]) -> None:
    headers = [("accept", "image/jpeg;q=0.5"), ("accept", "image/png;q=0.6")]
    response = ask(service, "POST", "/upload", files={"file": b"x"}, headers=headers)
    assert response.headers["content-type"] == "image/png"


def test_an_accept_header_that_nothing_satisfies(service: dict[str, Any]) -> None:
    response = ask(service, "POST", "/upload", files={"file": b"x"}, headers={"accept": "image/webp"})
    assert problem(response) == (406, "urn:roadseg:not-acceptable")
    assert "image/jpeg, image/png, application/json" in response.json()["detail"]
    assert response.headers["vary"] == "Accept"


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("format=bmp", "'jpeg', 'png', 'probability', 'overlay' or 'json'"),
        ("format=", "'jpeg'"),
        ("format=PNG", "'png'"),
        ("threshold=1.01", "less than or equal to 1"),
        ("threshold=-0.1", "greater than or equal to 0"),
        ("threshold=nan", "finite"),
        ("threshold=inf", "finite"),
        ("threshold=half", "number"),
        ("threshold=", "number"),
        ("threshold=0.5&format=%FF%00", "'jpeg'"),
    ],
)
def test_bad_parameters(service: dict[str, Any], query: str, remedy: str) -> None:
    response = ask(service, "POST", f"/upload?{query}", files={"file": b"x"})
    assert problem(response) == (422, "urn:roadseg:bad-parameter")
    assert remedy in response.json()["detail"]


def test_a_long_bad_parameter_is_cut_in_the_answer(service: dict[str, Any]) -> None:
    assert len(ask(service, "POST", f"/upload?format={'x' * 9000}").json()["detail"]) < 300


def test_a_long_file_arrives_whole(service: dict[str, Any]) -> None:
    data = bytes(range(256)) * 10_000  # longer than what Starlette keeps in memory
    response = ask(service | {"max_upload_bytes": 3_000_000}, "POST", "/upload", files={"file": data})
    assert response.content == b"mask of " + data


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (422, "urn:roadseg:missing-file")),
        ({"content": b""}, (422, "urn:roadseg:missing-file")),
        ({"files": {"picture": b"x"}}, (422, "urn:roadseg:missing-file")),
        ({"files": {"other": b"x"}, "data": {"file": "text"}}, (422, "urn:roadseg:missing-file")),
        ({"data": {"file": "text"}}, (422, "urn:roadseg:missing-file")),
        ({"files": [("file", b"x"), ("file", b"y")]}, (400, "urn:roadseg:bad-upload")),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            (400, "urn:roadseg:bad-upload"),
        ),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            (400, "urn:roadseg:bad-upload"),
        ),
    ],
)
def test_malformed_uploads(service: dict[str, Any], options: dict[str, Any], expected: tuple[int, str]) -> None:
    assert problem(ask(service, "POST", "/upload", **options)) == expected


def test_a_client_that_disconnects_is_not_a_bug(service: dict[str, Any]) -> None:
    refusals: list[RequestError] = []
    api = api_of(**service | {"note_refusal": refusals.append})
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/upload",
        "query_string": b"",
        "headers": [(b"content-type", b"multipart/form-data; boundary=b"), (b"content-length", b"1000")],
    }
    arriving = [{"type": "http.request", "body": b"--b\r\n", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return arriving.pop(0)

    async def send(_message: Any) -> None: ...

    asyncio.run(api(scope, receive, send))  # a fault would be raised again, for the server's log
    assert [type(refusal) for refusal in refusals] == [BadUploadError]


def test_a_content_length_over_the_limit_is_refused_unread(service: dict[str, Any]) -> None:
    headers = {"content-length": str(10**12), "content-type": "multipart/form-data; boundary=b"}
    response = ask(service, "POST", "/upload", content=b"", headers=headers)
    assert problem(response) == (413, "urn:roadseg:upload-too-large")


@pytest.mark.parametrize("announced", [{}, {"content-length": "10"}, {"content-length": "-1"}, {"content-length": "x"}])
def test_a_body_with_a_missing_or_wrong_content_length_is_cut_off(
    service: dict[str, Any], announced: dict[str, str]
) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while True:
            sent_bytes += 10_000
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=b"} | announced
    response = ask(service, "POST", "/upload", content=endless(), headers=headers)
    assert problem(response) == (413, "urn:roadseg:upload-too-large")
    assert sent_bytes <= MAX_UPLOAD_BYTES + FORM_ALLOWANCE_BYTES + 10_000


@pytest.mark.parametrize("kind", RequestError.__subclasses__())
def test_every_refusal_is_a_problem(service: dict[str, Any], kind: type[RequestError]) -> None:
    async def refuse(_data: bytes, _options: AnswerOptions) -> Answer:
        raise kind("what to do")

    response = ask(service | {"segment": refuse}, "POST", "/upload", files={"file": b"x"})
    assert problem(response) == (kind.problem.status, kind.problem.type)
    assert response.json()["detail"] == "what to do"


def test_a_bug_is_a_500_that_hides_its_cause(service: dict[str, Any]) -> None:
    async def fail(_data: bytes, _options: AnswerOptions) -> Answer:
        raise RuntimeError("inside")

    response = ask(service | {"segment": fail}, "POST", "/upload", files={"file": b"x"})
    assert problem(response) == (500, "about:blank")
    assert "inside" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/upload", 405), ("PUT", "/health", 405)]
)
def test_the_frameworks_own_errors_are_problems_too(
    service: dict[str, Any], method: str, path: str, status: int
) -> None:
    response = ask(service, method, path)
    assert problem(response) == (status, "about:blank")


def test_health_names_the_model_that_answers(service: dict[str, Any]) -> None:
    response = ask(service, "GET", "/health")
    assert response.json() == {"status": "ok", "model": "red", "version": "1"}


def test_health_fails_when_no_model_answers(service: dict[str, Any]) -> None:
    async def silent() -> ModelName:
        raise ModelUnavailableError("Try again.")

    response = ask(service | {"probe": silent}, "GET", "/health")
    assert problem(response) == (503, "urn:roadseg:model-unavailable")
    assert response.headers["retry-after"] == "1"


def test_a_stream_has_the_parameters_and_the_id_of_an_upload(service: dict[str, Any]) -> None:
    async def converse() -> None:
        inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "path": "/stream",
            "query_string": b"format=png&threshold=0.25",
            "headers": [(b"x-request-id", b"id-of-the-client")],
        }
        inbox.put_nowait({"type": "websocket.connect"})
        async with asyncio.TaskGroup() as tasks:
            api = api_of(**service | {"segment": picky})
            tasks.create_task(api(scope, inbox.get, outbox.put))  # type: ignore[arg-type]
            accepted = await outbox.get()
            assert accepted["type"] == "websocket.accept"
            assert (b"x-request-id", b"id-of-the-client") in accepted["headers"]
            inbox.put_nowait({"type": "websocket.receive", "bytes": b"picture"})
            assert json.loads((await outbox.get())["text"])["media_type"] == "image/png"
            assert (await outbox.get())["bytes"] == b"mask of picture"
            inbox.put_nowait({"type": "websocket.receive", "bytes": b"bad"})
            refusal = json.loads((await outbox.get())["text"])["problem"]
            assert (refusal["status"], refusal["request_id"]) == (400, "id-of-the-client")
            inbox.put_nowait({"type": "websocket.disconnect", "code": 1000})

    async def picky(data: bytes, options: AnswerOptions) -> Answer:
        assert options == AnswerOptions(Format.PNG, 0.25)
        if data == b"bad":
            raise BadUploadError("Send another.")
        return await echo(data, options)

    asyncio.run(converse())


def test_model_is_the_manifest(service: dict[str, Any], red_artefact: Path) -> None:
    manifest = json.loads((red_artefact / "manifest.json").read_text())
    assert ask(service, "GET", "/v1/model").json() == manifest


def test_the_page_loads_nothing_from_other_hosts(service: dict[str, Any]) -> None:
    response = ask(service, "GET", "/")
    assert response.headers["content-type"].startswith("text/html")
    assert "://" not in response.text


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from (value for key, value in document.items() if key == "$ref")
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


@pytest.fixture
def document(service: dict[str, Any]) -> Any:
    return ask(service, "GET", "/openapi.json").json()


def test_openapi_describes_every_route_and_answer(document: Any) -> None:
    assert set(document["paths"]) == {"/", "/status", "/upload", "/health", "/v1/model", "/v1/status"}
    upload = document["paths"]["/upload"]["post"]
    assert "multipart/form-data" in upload["requestBody"]["content"]
    statuses = {str(int(kind.problem.status)) for kind in RequestError.__subclasses__()}
    assert set(upload["responses"]) == statuses | {"200", "500"}
    assert set(upload["responses"]["200"]["content"]) == set(MEDIA_TYPES.values())
    for status in statuses:
        assert list(upload["responses"][status]["content"]) == ["application/problem+json"]
    parameters = {parameter["name"]: parameter["schema"] for parameter in upload["parameters"]}
    assert set(parameters) == {"format", "threshold"}
    assert (parameters["threshold"]["minimum"], parameters["threshold"]["maximum"]) == (0, 1)
    for path in document["paths"].values():
        for operation in path.values():
            assert operation["summary"]
            assert operation["description"]
            assert all(parameter["description"] for parameter in operation.get("parameters", []))
            for response in operation["responses"].values():
                assert response["description"]
                assert all(header["description"] for header in response.get("headers", {}).values())


def test_openapi_references_exist(document: Any) -> None:
    for reference in references(document):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_openapi_examples_match_their_schemas(document: Any) -> None:
    checked = 0
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        for response in operation["responses"].values():
            for content in response.get("content", {}).values():
                # Put beside the schema, the components are where its references look for them.
                schema = content.get("schema", {}) | {"components": document["components"]}
                examples = [example["value"] for example in content.get("examples", {}).values()]
                for example in examples + ([content["example"]] if "example" in content else []):
                    jsonschema.validate(example, schema)
                    checked += 1
    assert checked > len(RequestError.__subclasses__())


def test_the_example_picture_opens(document: Any) -> None:
    form = document["paths"]["/upload"]["post"]["requestBody"]["content"]["multipart/form-data"]
    picture = Image.open(io.BytesIO(form["example"]["file"].encode()))
    assert picture.size == (8, 6)
    assert picture.convert("RGB").getpixel((3, 5)) == (255, 255, 255)  # road
    assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 0)  # sky


def test_the_example_answer_is_right(document: Any) -> None:
    answer = document["paths"]["/upload"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    assert (answer["width"], answer["height"], answer["threshold"]) == (8, 6, 0.5)
    # The threshold of the red model is 0.5: five ninths of a pixel or more are road.
    assert answer["road_share"] == pytest.approx(14 / 48)
    assert answer["mask"]["rle"] == {"size": [6, 8], "counts": [11, 1, 4, 2, 2, 4, 2, 4, 4, 2, 5, 1, 6]}


def test_the_docs_page_loads_nothing_from_other_hosts(service: dict[str, Any]) -> None:
    sources = re.findall(r'(?:src|href)="([^"]+)"', ask(service, "GET", "/docs").text)
    assert len(sources) >= 2  # a script and its style
    for source in sources:
        assert source.startswith("/")
        assert ask(service, "GET", source).status_code == 200
