"""A replica is killed while it works on an upload: the client hears that it may send it again, and then is answered."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.uploads import WHOLE
from tests.server import Server, StartServer

ANSWER_TIMEOUT_S = 120
# How long the model waits for a second frame, and an upload is in it; a probe of its health may take 5 s.
GATHER_S = 3.0


@pytest.fixture(scope="module")
def server(start_server: StartServer, red_artefact: Path) -> Iterator[Server]:
    predict = {"batch_wait_timeout_s": GATHER_S, "max_batch_size": 2}
    settings = {"model": str(red_artefact), "form": "staged", "predict": predict}
    with start_server(settings=settings) as server:
        server.wait_until_ready()
        yield server


def test_a_client_is_told_to_send_it_again(server: Server) -> None:
    def upload() -> httpx.Response:
        return httpx.post(f"{server.url}/upload", files={"file": WHOLE}, timeout=ANSWER_TIMEOUT_S)

    assert upload().status_code == 200  # the stages know each other
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(upload)
        time.sleep(GATHER_S / 2)
        (pid,) = server.pids("ServeReplica:roadseg:Model")
        os.kill(pid, signal.SIGKILL)
        refusal = answer.result()
    assert (refusal.status_code, refusal.json()["type"]) == (503, "urn:roadseg:model-unavailable")
    assert refusal.headers["content-type"] == "application/problem+json"
    assert int(refusal.headers["retry-after"]) >= 1
    assert "Send it again" in refusal.json()["detail"]
    # Meanwhile another replica starts, and who comes waits for it.
    assert upload().status_code == 200
