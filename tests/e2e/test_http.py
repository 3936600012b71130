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
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image

from roadseg_serve.messages import MEDIA_TYPES, Format
from tests.e2e.uploads import BAD, MULTIPART, ODD, PART, WHOLE, file_of, form, left_half_red
from tests.server import Server


def road_of(response: httpx.Response) -> npt.NDArray[np.bool_]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.mode) == ("JPEG", "L")
    return np.asarray(picture) >= 128


def upload(client: httpx.Client, data: bytes, name: str = "road.png") -> httpx.Response:
    return client.post("/upload", files={"file": (name, data)})


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16"])
def test_any_mode_of_any_format(red: httpx.Client, kind: str, mode: str) -> None:
    size = (90, 70)
    if mode == "I;16":
        grey_HW = np.asarray(left_half_red(size).convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(grey_HW)
    else:
        picture = left_half_red(size).convert(mode)
    try:
        data = file_of(picture, kind)
    except OSError:
        pytest.skip(f"{kind} has no mode {mode}")
    road_HW = road_of(upload(red, data))
    assert road_HW.shape == (70, 90)
    assert road_HW[:, :43].all()
    assert not road_HW[:, 47:].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (13, 700), (641, 479), (8000, 200), (1242, 375)])
def test_any_size(red: httpx.Client, size: tuple[int, int]) -> None:
    road_HW = road_of(upload(red, file_of(left_half_red(size))))
    assert road_HW.shape == (size[1], size[0])
    assert abs(road_HW.mean() - (size[0] // 2) / size[0]) < 0.02


def test_a_turned_photo_gets_an_upright_mask(red: httpx.Client) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise: the left half becomes the upper half
    road_HW = road_of(upload(red, file_of(left_half_red((128, 64)), "JPEG", exif=exif), "photo.jpg"))
    assert road_HW.shape == (128, 64)
    assert road_HW[:62].all()
    assert not road_HW[66:].any()


@pytest.mark.parametrize("case", BAD)
def test_bad_uploads_get_a_problem_and_the_server_goes_on(red: httpx.Client, case: str) -> None:
    options, status = BAD[case]
    response = red.post("/upload", **options())
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert len(response.json()["detail"]) > 20
    assert road_of(upload(red, WHOLE)).mean() == 0.5


@pytest.mark.parametrize("case", ODD)
def test_odd_uploads_are_pictures_all_the_same(red: httpx.Client, case: str) -> None:
    road_HW = road_of(red.post("/upload", **ODD[case]()))
    assert road_HW.shape == (64, 64)
    assert road_HW[:, :31].all()
    assert not road_HW[:, 33:].any()


def upload_head(announced_bytes: int) -> bytes:
    lines = ["POST /upload HTTP/1.1", "Host: x", "Content-Type: multipart/form-data; boundary=b"]
    return "\r\n".join([*lines, f"Content-Length: {announced_bytes}", "Connection: close", "", ""]).encode()


@pytest.mark.parametrize("announced_bytes", [10, 100_000, -1])
def test_a_length_that_lies(red_server: Server, red: httpx.Client, announced_bytes: int) -> None:
    with socket.create_connection(("127.0.0.1", red_server.port), timeout=30) as connection:
        connection.sendall(upload_head(announced_bytes) + form((PART, WHOLE)))
        connection.shutdown(socket.SHUT_WR)  # no more is coming
        with contextlib.suppress(ConnectionResetError):  # a server may hang up on bytes that it does not want
            answer = connection.makefile("rb").read()
            assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert road_of(upload(red, WHOLE)).mean() == 0.5
    assert "Traceback" not in red_server.log.read_text()


def test_a_body_of_unknown_length_is_cut_off(red: httpx.Client) -> None:
    def long() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(70):
            yield bytes(1_000_000)

    assert red.post("/upload", content=long(), headers=MULTIPART).status_code == 413
    assert upload(red, WHOLE).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/upload", 405)])
def test_unknown_routes_are_problems(red: httpx.Client, method: str, path: str, status: int) -> None:
    response = red.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("wanted", Format)
def test_every_format(red: httpx.Client, wanted: Format) -> None:
    picture = left_half_red((96, 64))
    response = red.post(f"/upload?format={wanted}&threshold=1", files={"file": file_of(picture)})
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


def test_accept_chooses_the_format(red: httpx.Client) -> None:
    for accept, media_type in [
        ("image/png, */*;q=0.5", "image/png"),
        ("application/json", "application/json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/png,*/*;q=0.8", "image/jpeg"),
    ]:
        response = red.post("/upload", files={"file": WHOLE}, headers={"accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, media_type)
    response = red.post("/upload", files={"file": WHOLE}, headers={"accept": "image/webp"})
    assert (response.status_code, response.headers["content-type"]) == (406, "application/problem+json")


def test_eight_clients_at_once_each_get_their_own_mask(red_server: Server) -> None:
    def converse(client_number: int) -> None:
        # Sizes and shares of road that belong to this client only; some share a shape, and so a batch.
        width = 160 if client_number % 2 else 160 + 7 * client_number
        red_columns = 16 * (client_number + 1)
        picture = Image.new("RGB", (width, 64))
        picture.paste((255, 0, 0), (0, 0, red_columns, 64))
        data = file_of(picture)
        with httpx.Client(base_url=red_server.url, timeout=60) as client:
            for _ in range(6):
                road_HW = road_of(upload(client, data))
                assert road_HW.shape == (64, width)
                assert abs(road_HW.sum(axis=1) - red_columns).max() <= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(converse, range(8)))


def test_health_model_page_and_description(red: httpx.Client, red_artefact: Path) -> None:
    health = red.get("/health")
    assert (health.status_code, health.json()["model"], health.json()["version"]) == (200, "red", "1")
    assert red.get("/v1/model").json() == json.loads((red_artefact / "manifest.json").read_text())
    assert "Drop a picture" in red.get("/").text
    assert red.get("/docs").status_code == 200
    assert "/upload" in red.get("/openapi.json").json()["paths"]
    answer = upload(red, WHOLE)
    assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == ("red", "1")
