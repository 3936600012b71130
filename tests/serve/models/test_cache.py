"""Folders that several processes fill and remove."""

import os
import threading
import time
from pathlib import Path

import pytest

from roadseg_serve.errors import ArtefactError
from roadseg_serve.models import cache
from tests.wire import wait_until


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path))
    return tmp_path / "models"


def fetch(folder: Path) -> None:
    (folder / "file").write_text("whole")


def folders(models: Path) -> set[str]:
    return {path.name for path in models.iterdir() if path.is_dir()}


def used_at(folder: Path, time_s: int) -> None:
    os.utime(folder / cache.USED, (time_s, time_s))


def test_a_folder_is_filled(models: Path) -> None:
    folder = cache.fill("red-1@a.b", fetch)
    assert folder == models / "red-1@a.b"
    assert (folder / "file").read_text() == "whole"


def test_the_last_used_come_first(models: Path) -> None:
    assert cache.keys("@") == []
    for key, time_s in (("red-1@a.1", 10), ("red-1@a.2", 30), ("red-1@a.3", 20), ("red-1@b.1", 40)):
        used_at(cache.fill(key, fetch), time_s)
    (models / "red-1@a.4").mkdir()  # never filled
    assert cache.keys("@a.") == ["red-1@a.2", "red-1@a.3", "red-1@a.1", "red-1@a.4"]


def test_only_the_last_used_are_kept(models: Path) -> None:
    for number in range(cache.MAX_VERSIONS + 2):
        used_at(cache.fill(f"red-{number}", fetch), number + 1)
    cache.fill("red-0", fetch)  # used again: made again
    assert folders(models) == {"red-0", *(f"red-{number}" for number in range(3, cache.MAX_VERSIONS + 2))}


def test_a_folder_used_within_the_hour_is_kept(models: Path) -> None:
    for name, age_s in (("old", cache.MIN_AGE_S + 60), ("recent", cache.MIN_AGE_S - 60)):
        used_at(cache.fill(f"red-{name}", fetch), int(time.time() - age_s))
    for number in range(cache.MAX_VERSIONS):
        cache.fill(f"red-{number}", fetch)
    assert folders(models) == {"red-recent", *(f"red-{number}" for number in range(cache.MAX_VERSIONS))}


def test_a_folder_that_is_being_filled_is_kept(models: Path) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def fetch_slowly(folder: Path) -> None:
        begun.set()
        assert go_on.wait(60)
        fetch(folder)

    filler = threading.Thread(target=cache.fill, args=("red-slow", fetch_slowly))
    filler.start()
    assert begun.wait(60)
    for number in range(cache.MAX_VERSIONS + 1):
        cache.fill(f"red-{number}", fetch)
    go_on.set()
    filler.join()
    assert (models / "red-slow" / "file").read_text() == "whole"


def test_one_fills_while_others_wait() -> None:
    num_now, most = 0, 0
    lock = threading.Lock()

    def fetch_alone(folder: Path) -> None:
        nonlocal num_now, most
        with lock:
            num_now += 1
            most = max(most, num_now)
        threading.Event().wait(0.05)
        fetch(folder)
        with lock:
            num_now -= 1

    threads = [threading.Thread(target=cache.fill, args=("red-1", fetch_alone)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    assert most == 1


def test_a_failure_to_fill_is_passed_on_and_frees_the_lock() -> None:
    def fail(folder: Path) -> None:
        raise ArtefactError(f"nothing for {folder.name}")

    with pytest.raises(ArtefactError, match="nothing for red-1"):
        cache.fill("red-1", fail)
    assert cache.fill("red-1", fetch)


def test_a_cache_that_cannot_be_written_is_an_error_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("ROADSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArtefactError, match=r"cannot hold the model .* set ROADSEG_CACHE"):
        cache.fill("red-1", fetch)


def test_the_variable_replaces_the_users_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.root() == tmp_path / "models"
    monkeypatch.delenv("ROADSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/someone")
    assert cache.root() == Path("/var/cache/someone/roadseg/models")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache.root() == Path("/home/someone/.cache/roadseg/models")
