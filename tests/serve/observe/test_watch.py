"""When the server is watched, and when not; what a look finds is made by hand."""

import asyncio
import threading
import time

import pytest

from roadseg_serve.errors import ModelUnavailableError
from roadseg_serve.observe import watch
from roadseg_serve.observe.status import Look
from roadseg_serve.observe.watch import Watch
from tests.server import free_port
from tests.wire import wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "PERIOD_S", 0.02)
    monkeypatch.setattr(watch, "IDLE_S", 0.3)


class Looks:
    """A look each time it is called, at the times given, and then ever later ones."""

    def __init__(self, *times_s: float) -> None:
        self.num = 0
        self._times_s = list(times_s)

    def __call__(self) -> Look:
        self.num += 1
        return Look(self._times_s.pop(0) if self._times_s else time.time(), {}, {})


def test_nobody_asks_and_nothing_is_done() -> None:
    looks = Looks()
    Watch((), looks)
    time.sleep(0.1)
    assert looks.num == 0


def test_it_is_watched_once_for_all_who_ask_and_no_longer_than_they_do() -> None:
    looks = Looks()
    watched = Watch((), looks)

    async def ask() -> None:
        await asyncio.gather(*(watched.status() for _ in range(5)))

    asyncio.run(ask())
    assert [thread.name for thread in threading.enumerate()].count("roadseg-watch") == 1
    wait_until(lambda: looks.num >= 3)
    wait_until(lambda: "roadseg-watch" not in [thread.name for thread in threading.enumerate()])
    num = looks.num
    asyncio.run(ask())  # begins anew
    assert looks.num > num


def test_history_is_of_the_last_minutes() -> None:
    now_s = time.time()
    watched = Watch((), Looks(now_s - 700, now_s - 500, now_s))
    asyncio.run(watched.status())

    def times_s() -> list[float]:
        return [moment.time_s for moment in asyncio.run(watched.status()).history]

    wait_until(lambda: len(times_s()) >= 3)
    assert times_s()[:2] == [now_s - 500, now_s]


def test_what_is_old_is_said_to_be() -> None:
    ray_answers = threading.Event()
    looks = Looks(time.time() - 60)

    def look() -> Look:
        if looks.num:
            ray_answers.wait()
        return looks()

    status = asyncio.run(Watch((), look).status())
    ray_answers.set()
    assert status.problems == ["Ray does not answer; what is shown is 60 s old."]


def test_what_cannot_be_learnt_is_a_problem_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FIRST_LOOK_TIMEOUT_S", 0.2)
    found: list[Look] = []

    def look() -> Look:
        if not found:
            raise RuntimeError("Ray is not there")
        return found[0]

    watched = Watch((), look)
    with pytest.raises(ModelUnavailableError, match="Try again"):
        asyncio.run(watched.status())
    found.append(Look(time.time(), {}, {}))
    assert asyncio.run(watched.status()).problems == []


def test_a_node_that_is_not_there_tells_nothing() -> None:
    assert watch._fetch(f"http://127.0.0.1:{free_port()}/metrics") is None
