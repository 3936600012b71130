"""Real HTTP against a running server: pictures of all kinds, bad uploads, many clients at once."""

import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image


def file_of(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def left_half_red(size: tuple[int, int]) -> Image.Image:
    picture = Image.new("RGB", size, (0, 0, 0))
    picture.paste((255, 255, 255), (0, 0, size[0] // 2, size[1]))
    return picture


def road_of(response: httpx.Response) -> npt.NDArray[np.bool_]:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/jpeg"
    picture = Image.open(io.BytesIO(response.content))
    assert (picture.format, picture.mode) == ("JPEG", "L")
    return np.asarray(picture) >= 128


def upload(client: httpx.Client, data: bytes, name: str = "road.png") -> httpx.Response:
    return client.post("/upload", files={"file": (name, data)})


def bomb(width: int, height: int, *, num_rows: int | None = None) -> bytes:
    """A PNG of a few kilobytes that unfolds to width x height pixels, or at least claims so."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    deflate = zlib.compressobj(9)
    row = bytes(1 + width // 8)
    pixels = b"".join(deflate.compress(row) for _ in range(num_rows or height)) + deflate.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


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


WHOLE = file_of(left_half_red((64, 64)))
NOISE = file_of(Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)), "JPEG")
MULTIPART = {"content-type": "multipart/form-data; boundary=b"}
BAD_UPLOADS: dict[str, tuple[dict[str, Any], int]] = {
    "text file": ({"files": {"file": ("road.png", b"not a picture\n", "image/png")}}, 415),
    "pdf": ({"files": {"file": b"%PDF-1.7\n1 0 obj"}}, 415),
    "eps": ({"files": {"file": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}}, 415),
    "svg": ({"files": {"file": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}}, 415),
    "half a png": ({"files": {"file": WHOLE[: len(WHOLE) // 2]}}, 400),
    "half a jpeg": ({"files": {"file": NOISE[: len(NOISE) // 2]}}, 400),
    "empty file": ({"files": {"file": b""}}, 400),
    "empty body": ({}, 422),
    "empty form": ({"content": b"", "headers": MULTIPART}, 422),
    "wrong field": ({"files": {"image": WHOLE}}, 422),
    "two files": ({"files": [("file", WHOLE), ("file", WHOLE)]}, 400),
    "text field": ({"data": {"file": "road.png"}}, 422),
    "raw body": ({"content": WHOLE, "headers": {"content-type": "image/png"}}, 422),
    "form without boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400),
    "form cut off": (
        {"content": b'--b\r\nContent-Disposition: form-data; name="fi', "headers": MULTIPART},
        422,
    ),
    "json": ({"json": {"file": "road.png"}}, 422),
    "100 megapixels": ({"files": {"file": bomb(10_000, 10_000)}}, 413),
    "10 gigapixels": ({"files": {"file": bomb(100_000, 100_000, num_rows=64)}}, 413),
    "too wide for a jpeg": ({"files": {"file": bomb(70_000, 8)}}, 413),
    "60 MB": ({"files": {"file": bytes(60_000_000)}}, 413),
}


@pytest.mark.parametrize("case", BAD_UPLOADS)
def test_bad_uploads_get_a_problem_and_the_server_goes_on(red: httpx.Client, case: str) -> None:
    options, status = BAD_UPLOADS[case]
    response = red.post("/upload", **options)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert len(response.json()["detail"]) > 20
    assert road_of(upload(red, WHOLE)).mean() == 0.5


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


def test_eight_clients_at_once_each_get_their_own_mask(red_server: Any) -> None:
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
