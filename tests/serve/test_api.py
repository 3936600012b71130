"""The HTTP contract over a service that answers by hand; no Ray, no model."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from roadseg_serve import artefact
from roadseg_serve.api import FORM_ALLOWANCE_BYTES, Service, create_api
from roadseg_serve.errors import PROBLEMS, ModelUnavailableError, RequestError
from roadseg_serve.messages import Answer, ModelName, Wish
from roadseg_serve.settings import BackpressureConfig

MAX_UPLOAD_BYTES = 1000
MODEL = ModelName("red", "1")


async def echo(data: bytes, _wish: Wish) -> Answer:
    return Answer(body=b"mask of " + data, media_type="image/jpeg", model=MODEL, road_share=0.5)


async def answering() -> ModelName:
    return MODEL


@pytest.fixture
def service(red_artefact: Path) -> dict[str, Any]:
    manifest = artefact.read(red_artefact).manifest
    return {
        "segment": echo,
        "probe": answering,
        "manifest": manifest,
        "max_upload_bytes": MAX_UPLOAD_BYTES,
        "note_refusal": lambda _error: None,
        "backpressure": BackpressureConfig(),
    }


def client_of(service: dict[str, Any]) -> httpx.AsyncClient:
    # As a real server does: an exception of ours becomes an answer, not a crash of the client.
    transport = httpx.ASGITransport(create_api(Service(**service)), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://roadseg")


def ask(service: dict[str, Any], method: str, path: str, **options: Any) -> httpx.Response:
    async def once() -> httpx.Response:
        async with client_of(service) as client:
            return await client.request(method, path, **options)

    return asyncio.run(once())


def problem(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["status"] == response.status_code
    assert body["detail"]
    return response.status_code, body["type"]


def test_upload_answers_with_the_mask_and_its_model(service: dict[str, Any]) -> None:
    response = ask(service, "POST", "/upload", files={"file": ("road.png", b"picture", "image/png")})
    assert (response.status_code, response.headers["content-type"]) == (200, "image/jpeg")
    assert response.content == b"mask of picture"
    assert (response.headers["x-model-name"], response.headers["x-model-version"]) == ("red", "1")


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


def test_an_announced_length_over_the_limit_is_refused_unread(service: dict[str, Any]) -> None:
    headers = {"content-length": str(10**12), "content-type": "multipart/form-data; boundary=b"}
    response = ask(service, "POST", "/upload", content=b"", headers=headers)
    assert problem(response) == (413, "urn:roadseg:upload-too-large")


def test_an_unannounced_length_is_counted_and_cut_off(service: dict[str, Any]) -> None:
    sent_bytes = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent_bytes
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while True:
            sent_bytes += 10_000
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    response = ask(service, "POST", "/upload", content=endless(), headers=headers)
    assert problem(response) == (413, "urn:roadseg:upload-too-large")
    assert sent_bytes <= MAX_UPLOAD_BYTES + FORM_ALLOWANCE_BYTES + 10_000


@pytest.mark.parametrize("kind", PROBLEMS)
def test_every_refusal_is_a_problem(service: dict[str, Any], kind: type[RequestError]) -> None:
    async def refuse(_data: bytes, _wish: Wish) -> Answer:
        raise kind("what to do")

    response = ask(service | {"segment": refuse}, "POST", "/upload", files={"file": b"x"})
    assert problem(response) == (PROBLEMS[kind].status, PROBLEMS[kind].type)
    assert response.json()["detail"] == "what to do"


def test_a_fault_of_ours_is_a_500_without_its_inside(service: dict[str, Any]) -> None:
    async def fail(_data: bytes, _wish: Wish) -> Answer:
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


def test_model_is_the_manifest(service: dict[str, Any], red_artefact: Path) -> None:
    manifest = json.loads((red_artefact / "manifest.json").read_text())
    assert ask(service, "GET", "/v1/model").json() == manifest


def test_the_page_needs_nothing_from_elsewhere(service: dict[str, Any]) -> None:
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


def test_openapi_describes_every_route_and_answer(service: dict[str, Any]) -> None:
    document = ask(service, "GET", "/openapi.json").json()
    assert set(document["paths"]) == {"/upload", "/health", "/v1/model"}
    upload = document["paths"]["/upload"]["post"]
    assert "multipart/form-data" in upload["requestBody"]["content"]
    assert set(upload["responses"]) == {"200", "400", "413", "415", "422", "503"}
    assert list(upload["responses"]["200"]["content"]) == ["image/jpeg"]
    assert list(upload["responses"]["415"]["content"]) == ["application/problem+json"]
    for reference in references(document):
        part = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]


def test_the_page_of_the_docs_needs_no_other_host(service: dict[str, Any]) -> None:
    sources = re.findall(r'(?:src|href)="([^"]+)"', ask(service, "GET", "/docs").text)
    assert len(sources) >= 2  # a script and its style
    for source in sources:
        assert source.startswith("/")
        assert ask(service, "GET", source).status_code == 200
