"""Watch the whole server for as long as somebody looks: the thin part of `status`."""

import asyncio
import logging
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import ray
from ray import serve

from roadseg_serve.errors import ModelUnavailableError
from roadseg_serve.observe.status import WINDOW_S, Look, Moment, Series, Status, moment_of, parse, summarise

PERIOD_S = 5.0
HISTORY_S = 600.0
IDLE_S = 300.0  # so long it goes on when nobody looks, for who comes back
FETCH_TIMEOUT_S = 3.0
FIRST_LOOK_TIMEOUT_S = 10.0
NUM_FETCHES = 8  # at once
POLL_S = 0.05
STALE_S = 20.0

log = logging.getLogger("ray.serve.roadseg")


class Watch:
    """The status of the whole server.

    While nobody asks, nothing is done. Once somebody does, a thread asks all nodes every `PERIOD_S`: it costs each node
    some hundred kilobytes of text, made by Ray's agent there, and this process a few milliseconds.

    Args:
        steps: names of the steps of the work, in their order.
        look: asks all nodes; may take as long as it takes.
    """

    def __init__(self, steps: Iterable[str], look: Callable[[], Look]) -> None:
        self._steps = tuple(steps)
        self._look = look
        self._looks: deque[Look] = deque()
        self._history: deque[Moment] = deque()
        self._status: Status | None = None
        self._asked_s = 0.0
        self._thread: threading.Thread | None = None

    async def status(self) -> Status:
        """The latest status, no older than a few seconds.

        Raises:
            ModelUnavailableError: nothing could be learnt in `FIRST_LOOK_TIMEOUT_S`.
        """
        self._asked_s = time.monotonic()
        if self._thread is None:  # which is ever only done here, in the loop
            self._thread = threading.Thread(target=self._run, daemon=True, name="roadseg-watch")
            self._thread.start()
        while self._status is None:
            if time.monotonic() - self._asked_s > FIRST_LOOK_TIMEOUT_S:
                raise ModelUnavailableError("The server's nodes do not answer. Try again in a moment.")
            await asyncio.sleep(POLL_S)
        age_s = time.time() - self._status.time_s
        if age_s > STALE_S:
            problem = f"Ray does not answer; what is shown is {age_s:.0f} s old."
            return self._status.model_copy(update={"problems": [*self._status.problems, problem]})
        return self._status

    def _run(self) -> None:
        try:
            while time.monotonic() - self._asked_s < IDLE_S:
                started_s = time.monotonic()
                self._note(self._look())
                time.sleep(max(0.0, PERIOD_S - (time.monotonic() - started_s)))
        except Exception:
            log.exception("the server's status cannot be learnt")
        finally:
            self._status = None  # not to be taken for the present one by who asks next, and begins anew
            self._thread = None

    def _note(self, look: Look) -> None:
        self._looks.append(look)
        while self._looks[0].time_s < look.time_s - WINDOW_S:
            self._looks.popleft()
        status = summarise(self._looks, self._steps)
        self._history.append(moment_of(status))
        while self._history[0].time_s < look.time_s - HISTORY_S:
            self._history.popleft()
        status.history = list(self._history)
        self._status = status


def look_around() -> Look:
    """Ask every node that is alive for its metrics, and Ray Serve for its replicas; in a replica of it."""
    time_s, problems = time.time(), []
    nodes = [node for node in ray.nodes() if node["Alive"]]
    urls = [f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics" for node in nodes]
    with ThreadPoolExecutor(NUM_FETCHES) as pool:
        texts = list(pool.map(_fetch, urls))
    num_silent = texts.count(None)
    if num_silent:
        problems.append(f"{num_silent} of {len(nodes)} nodes did not answer; what happens there is missing.")
    series: Series = {}
    for url, text in zip(urls, texts, strict=True):
        series |= parse(text or "", url)
    application = serve.status().applications[serve.get_replica_context().app_name]
    states = {
        name: (deployment.status.value, {str(state): num for state, num in deployment.replica_states.items()})
        for name, deployment in application.deployments.items()
    }
    return Look(time_s, series, states, problems)


def _fetch(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=FETCH_TIMEOUT_S) as answer:  # noqa: S310 a node of our own cluster
            text: str = answer.read().decode()
            return text
    except OSError:
        return None
