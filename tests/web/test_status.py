"""The page of the status as a person reads it: a key is asked for, and what happens to the server is shown."""

import json
from pathlib import Path

import httpx
import pytest

from tests.server import Server
from tests.web.browser import Browser
from tests.web.conftest import KEY, SERVED
from tests.wire import wait_until

ANSWER_TIMEOUT_S = 120
HEADERS = {"X-API-Key": KEY}


@pytest.fixture(scope="module", autouse=True)
def quiet(server: Server) -> None:
    """What others have uploaded is no part of what this module looks at: it was exported before anybody looked."""
    server.wait_until_quiet()


def give(page: Browser, key: str) -> None:
    page.type(key)  # the page has put the focus there
    page.click("#ask button")


def test_figures_are_for_who_has_a_key(page: Browser, server: Server) -> None:
    page.open(f"{server.url}/status")
    wait_until(lambda: page.is_shown("#ask"))
    assert "needs an API key" in page.text("#say")
    assert not page.is_shown("#all")
    give(page, "the-key-of-may")
    wait_until(lambda: "not valid" in page.text("#say"))
    assert not page.is_shown("#all")
    give(page, KEY)
    wait_until(lambda: page.is_shown("#all"))
    assert not page.is_shown("#ask")


def test_what_happens_is_shown(page: Browser, server: Server, file: Path) -> None:
    page.run(f"sessionStorage.setItem('key', {KEY!r})")
    page.open(f"{server.url}/status")
    wait_until(lambda: "Live" in page.text("#say"))
    wait_until(lambda: SERVED in page.text("#model"))
    assert "healthy" in page.text("#deployments")
    assert "1 of 1" in page.text("#deployments")
    wait_until(lambda: "counts cover the " in page.text("#window"))

    picture = file.read_bytes()
    with httpx.Client(base_url=server.url, headers=HEADERS, timeout=ANSWER_TIMEOUT_S) as client:
        for _ in range(3):
            assert client.post("/upload", files={"file": picture}).status_code == 200
        for _ in range(2):
            assert client.post("/upload", files={"file": b"no picture"}).status_code == 415

        def status() -> dict[str, object]:
            answer: dict[str, object] = client.get("/v1/status").json()
            return answer

        # Three and two, whichever of Ray's exports tells of them.
        wait_until(lambda: status()["requests"] == {"200": 3, "415": 2})
        refusals = status()["refusals"]
        assert isinstance(refusals, dict)
        assert refusals["not-an-image"] == 2
        assert status()["failed_share"] == 0
    wait_until(lambda: "not-an-image\t2" in page.text("#reasons"))
    steps = page.run("[...document.querySelectorAll('#steps th')].map(cell => cell.innerText)")
    assert steps == ["decode", "resize", "queue", "infer", "encode", "total"]
    assert "frames on average" in page.text("#batch")
    # A chart has the figures as words too, and as many points as there are moments.
    assert "Pictures, last" in str(page.run("document.querySelector('#tiles svg').ariaLabel"))
    wait_until(lambda: str(page.run("document.querySelectorAll('#tiles path')[1].getAttribute('d')")).count("L") >= 2)
    # Nothing is asked for but by this server.
    asked = page.run("performance.getEntriesByType('resource').map(entry => entry.name)")
    assert {url for url in asked if not url.startswith("data:")} == {f"{server.url}/v1/status"}


@pytest.mark.parametrize("width_px", [320, 900])
def test_nothing_is_beside_the_screen(page: Browser, server: Server, width_px: int) -> None:
    page.resize(width_px, 800)
    page.run(f"sessionStorage.setItem('key', {KEY!r})")
    page.open(f"{server.url}/status")
    wait_until(lambda: page.is_shown("#all"))
    assert page.run("document.documentElement.scrollWidth") == width_px


def test_a_server_that_went_away_is_told(page: Browser, server: Server) -> None:
    page.run(f"sessionStorage.setItem('key', {KEY!r})")
    page.open(f"{server.url}/status")
    wait_until(lambda: page.is_shown("#all"))
    page.run("void (window.fetch = () => Promise.reject(new Error('gone')))")  # the network, as the page sees it
    wait_until(lambda: "not responding (gone)" in page.text("#say"))


def test_the_same_for_programs(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/status").status_code == 401
    answer = httpx.get(f"{server.url}/v1/status", headers=HEADERS, timeout=ANSWER_TIMEOUT_S)
    (stage,) = answer.json()["deployments"]
    assert (stage["name"], stage["state"], stage["replicas"]) == ("Fused", "HEALTHY", {"RUNNING": 1})
    assert answer.headers["cache-control"] == "no-store"
    assert json.loads(answer.text)["problems"] == []
