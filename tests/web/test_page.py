"""The page as a person uses it: a picture is dropped, a key is asked for, the road is shown."""

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.server import Server
from tests.web.browser import Browser
from tests.web.conftest import KEY, SERVED
from tests.wire import wait_until

ANSWER_TIMEOUT_S = 120


def pixels(file: bytes) -> npt.NDArray[np.int64]:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def shown(page: Browser) -> npt.NDArray[np.int64]:
    """What the page has drawn: image_HWC, RGB in [0, 255]."""
    url = str(page.run("document.querySelector('#view').toDataURL()"))
    return pixels(base64.b64decode(url.partition(",")[2]))[..., :3]


def road_by_api(server: Server, file: Path) -> npt.NDArray[np.bool_]:
    """What the API says of the same picture: road_HW."""
    url, headers = f"{server.url}/upload?format=png", {"X-API-Key": KEY}
    answer = httpx.post(url, headers=headers, files={"file": file.read_bytes()}, timeout=ANSWER_TIMEOUT_S)
    road_HW: npt.NDArray[np.bool_] = pixels(answer.content) == 255
    return road_HW


def give(page: Browser, key: str) -> None:
    page.type(key)  # the page has put the focus there
    page.click("#ask button")


def test_a_picture_is_dropped_a_key_is_given_and_the_road_is_shown(page: Browser, server: Server, file: Path) -> None:
    wait_until(lambda: SERVED in page.text("footer"))
    assert not page.is_shown("#ask")
    page.drop(file, "#drop")
    wait_until(lambda: page.is_shown("#ask"))
    assert "needs an API key" in page.text("#status")

    give(page, "the-key-of-may")
    wait_until(lambda: "not valid" in page.text("#status"))
    assert page.is_shown("#ask")
    assert not page.is_shown("#view")

    give(page, KEY)
    wait_until(lambda: page.is_shown("#view"))
    assert not page.is_shown("#ask")
    assert "% of the picture is road" in page.text("#status")
    picture_HWC, road_HW = pixels(file.read_bytes()), road_by_api(server, file)
    assert 0.2 < road_HW.mean() < 0.6
    # 130 of 255 parts of the page's green, over the picture's colour; two steps of rounding.
    expected_HWC = np.where(road_HW[..., None], (125 * picture_HWC + 130 * np.array([26, 200, 110])) / 255, picture_HWC)
    assert np.abs(shown(page) - expected_HWC).max() <= 2
    assert page.is_shown("#mask")

    # The key stays for as long as the tab is open.
    page.open(server.url)
    page.drop(file, "#drop")
    wait_until(lambda: page.is_shown("#view"))
    assert not page.is_shown("#ask")


def test_what_is_no_picture_is_told(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "road.txt").write_text("no picture")
    page.run(f"sessionStorage.setItem('key', {KEY!r})")
    page.drop(tmp_path / "road.txt", "#drop")
    wait_until(lambda: "not a picture" in page.text("#status"))
    assert not page.is_shown("#view")
