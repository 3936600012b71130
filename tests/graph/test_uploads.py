"""Uploads of every kind to the routes over the whole graph, in one process: pictures, odd pictures, and bad uploads."""

import asyncio
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image
from starlette.types import ASGIApp

from roadseg_serve.messages import Answer, AnswerOptions
from tests.graph.conftest import Segment
from tests.serve.gated import api_of, ask
from tests.uploads import BAD, ODD, Options, file, file_of, left_half_red, road_of

# What Pillow warns of in bad pictures is an error in tests, and would be the answer; a server goes on.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

MAX_UPLOAD_BYTES = 50_000_000
# These need a real connection, in tests/e2e/test_http.py: one comes in pieces; of one, Starlette leaves a file open.
OVER_HTTP = ("in pieces", "form without its end")

Post = Callable[[Options], httpx.Response]


@pytest.fixture(scope="module")
def post(segment: Segment) -> Post:
    """Send an upload."""

    async def through_the_graph(data: bytes, options: AnswerOptions) -> Answer:
        return await asyncio.to_thread(segment, data, options)

    api: ASGIApp = api_of(segment=through_the_graph, max_upload_bytes=MAX_UPLOAD_BYTES)
    return lambda options: ask(api, "POST", "/upload", **options)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LA", "I;16"])
def test_any_mode_of_any_format(post: Post, kind: str, mode: str) -> None:
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
    road_HW = road_of(post(file(data)))
    assert road_HW.shape == (70, 90)
    assert road_HW[:, :43].all()
    assert not road_HW[:, 47:].any()


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (13, 700), (641, 479), (8000, 200), (1242, 375)])
def test_any_size(post: Post, size: tuple[int, int]) -> None:
    road_HW = road_of(post(file(file_of(left_half_red(size)))))
    assert road_HW.shape == (size[1], size[0])
    assert abs(road_HW.mean() - (size[0] // 2) / size[0]) < 0.02


def test_a_turned_photo_gets_an_upright_mask(post: Post) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # turn clockwise: the left half becomes the upper half
    road_HW = road_of(post(file(file_of(left_half_red((128, 64)), "JPEG", exif=exif), "photo.jpg")))
    assert road_HW.shape == (128, 64)
    assert road_HW[:62].all()
    assert not road_HW[66:].any()


@pytest.mark.parametrize("case", [case for case in BAD if case not in OVER_HTTP])
def test_bad_uploads_get_a_problem(post: Post, case: str) -> None:
    options, status = BAD[case]
    response = post(options())
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    assert len(response.json()["detail"]) > 20


@pytest.mark.parametrize("case", [case for case in ODD if case not in OVER_HTTP])
def test_odd_uploads_are_pictures_all_the_same(post: Post, case: str) -> None:
    road_HW = road_of(post(ODD[case]()))
    assert road_HW.shape == (64, 64)
    assert road_HW[:, :31].all()
    assert not road_HW[:, 33:].any()
