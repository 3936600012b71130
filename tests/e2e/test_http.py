"""Real HTTP against a running server: pictures of all kinds, bad uploads, many clients at once."""

import contextlib
import io
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from roadseg_serve.messages import MEDIA_TYPES, Format
from tests.server import Server
from tests.uploads import BAD, MULTIPART, ODD, PART, WHOLE, file_of, form, left_half_red, road_of

pytestmark = pytest.mark.parametrize("form", ["fused"], indirect=True, scope="session")

# Where the HTTP server itself has a say, or the process might end; the others are in tests/graph/test_uploads.py.
BAD_OVER_HTTP = (
    "text",
    "60 MB",
    "10 gigapixels",
    "png with a text of 200 MB",
    "jpeg of 5000 scans",
    "empty body",
    "boundary that is not ascii",
    "form cut off",
    "form without its end",
    "part with a header of 1 MB",
    "5000 fields",
)
ODD_OVER_HTTP = ("a name in latin-1", "in pieces", "colour profile of 9 MB", "gif, second frame spoilt")


def upload(client: httpx.Client, data: bytes, name: str = "road.png") -> httpx.Response:
    return client.post("/upload", files={"file": (name, data)})


@pytest.mark.parametrize("case", BAD_OVER_HTTP)
def test_bad_uploads_get_a_problem_and_the_server_goes_on(client: httpx.Client, case: str) -> None:
    options, status = BAD[case]
    response = client.post("/upload", **options())
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert len(response.json()["detail"]) > 20
    assert road_of(upload(client, WHOLE)).mean() == 0.5


@pytest.mark.parametrize("case", ODD_OVER_HTTP)
def test_odd_uploads_are_pictures_all_the_same(client: httpx.Client, case: str) -> None:
    road_HW = road_of(client.post("/upload", **ODD[case]()))
    assert road_HW.shape == (64, 64)
    assert road_HW[:, :31].all()
    assert not road_HW[:, 33:].any()


def upload_head(announced_bytes: int) -> bytes:
    lines = ["POST /upload HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b"]
    return "\r\n".join([*lines, f"Content-Length: {announced_bytes}", "Connection: close", "", ""]).encode()


@pytest.mark.parametrize("announced_bytes", [10, 100_000, -1])
def test_a_length_that_lies(server: Server, client: httpx.Client, announced_bytes: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(upload_head(announced_bytes) + form((PART, WHOLE)))
        connection.shutdown(socket.SHUT_WR)  # no more is coming
        with contextlib.suppress(ConnectionResetError):  # a server may hang up on bytes that it does not want
            answer = connection.makefile("rb").read()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert road_of(upload(client, WHOLE)).mean() == 0.5
    assert "Traceback" not in server.log.read_text()


def test_a_body_of_unknown_length_is_cut_off(client: httpx.Client) -> None:
    def long() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(70):
            yield bytes(1_000_000)

    assert client.post("/upload", content=long(), headers=MULTIPART).status_code == 413
    assert upload(client, WHOLE).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/upload", 405)])
def test_unknown_routes_are_problems(client: httpx.Client, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("wanted", Format)
def test_every_format(client: httpx.Client, wanted: Format) -> None:
    picture = left_half_red((96, 64))
    response = client.post(f"/upload?format={wanted}&threshold=1", files={"file": file_of(picture)})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPES[wanted]
    assert response.headers["x-road-share"] == "0.500000"
    assert re.fullmatch(
        r"decode;dur=[\d.]+, resize;dur=[\d.]+,.* encode;dur=[\d.]+, total;dur=[\d.]+",
        response.headers["server-timing"],
    )
    if wanted is Format.JSON:
        findings = response.json()
        assert (findings["width"], findings["height"], findings["threshold"]) == (96, 64, 1)
        assert set(findings["timings_ms"]) == {"decode", "resize", "queue", "infer", "encode"}
        assert findings["request_id"] == response.headers["x-request-id"]
        assert findings["mask"]["rle"] == {"size": [64, 96], "counts": [0, 48 * 64, 48 * 64]}
    else:
        answer = Image.open(io.BytesIO(response.content))
        assert answer.size == (96, 64)
        assert answer.mode == ("RGB" if wanted is Format.OVERLAY else "L")


def test_accept_chooses_the_format(client: httpx.Client) -> None:
    for accept, media_type in [
        ("image/png, */*;q=0.5", "image/png"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/png,*/*;q=0.8", "image/jpeg"),
    ]:
        response = client.post("/upload", files={"file": WHOLE}, headers={"accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    response = client.post("/upload", files={"file": WHOLE}, headers={"accept": "image/webp"})
    assert (response.status_code, response.headers["content-type"]) == (406, "application/problem+json")


def test_eight_clients_at_once_each_get_their_own_mask(server: Server) -> None:
    def converse(client_number: int) -> None:
        # Sizes and shares of road that belong to this client only; some share a shape, and so a batch.
        width = 160 if client_number % 2 else 160 + 7 * client_number
        red_columns = 16 * (client_number + 1)
        picture = Image.new("RGB", (width, 64))
        picture.paste((255, 0, 0), (0, 0, red_columns, 64))
        data = file_of(picture)
        with httpx.Client(base_url=server.url, timeout=60) as own:
            for _ in range(6):
                road_HW = road_of(upload(own, data))
                assert road_HW.shape == (64, width)
                assert abs(road_HW.sum(axis=1) - red_columns).max() <= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(converse, range(8)))


def test_health_model_page_and_description(client: httpx.Client, red_artefact: Path) -> None:
    health = client.get("/health")
    assert (health.status_code, health.json()["model"], health.json()["version"]) == (200, "red", "1")
    assert client.get("/v1/model").json() == json.loads((red_artefact / "manifest.json").read_text())
    assert "Drop a picture" in client.get("/").text
    assert client.get("/docs").status_code == 200
    assert "/upload" in client.get("/openapi.json").json()["paths"]
    answer = upload(client, WHOLE)
    assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == ("red", "1")
