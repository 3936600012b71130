"""Constant load, and the outcome of every request."""

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

TIMEOUT_S = 60


@dataclass(frozen=True)
class Outcome:
    """One upload.

    Attributes:
        start_s: when it was sent, by time.monotonic().
        duration_s: until the whole response had arrived.
        what: `200`, another status, or the name of the connection error.
    """

    start_s: float
    duration_s: float
    what: str


@dataclass
class Load:
    """A context in which several clients keep uploading one picture.

    Attributes:
        url: of /upload, with the format of the response.
        picture: the upload, as JPEG.
        headers: sent with every request, such as the API key.
        num_clients: how many requests run at a time.
        pause_s: how long each client waits between two requests.
        outcomes: one for each request so far.
        masks: every distinct mask so far, by the name of the model that it came from.
    """

    url: str
    picture: bytes
    headers: dict[str, str]
    num_clients: int = 2
    pause_s: float = 0.1
    outcomes: list[Outcome] = field(default_factory=list)
    masks: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))

    def __enter__(self) -> Self:
        self._stopped = threading.Event()
        self._clients = [threading.Thread(target=self._upload, daemon=True) for _ in range(self.num_clients)]
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for client in self._clients:
            client.join(2 * TIMEOUT_S)

    @property
    def failures(self) -> list[Outcome]:
        """The requests that got no mask."""
        return [outcome for outcome in self.outcomes if outcome.what != "200"]

    @property
    def outage_s(self) -> float:
        """From the first failure to the end of the last one."""
        failures = self.failures
        if not failures:
            return 0.0
        return max(o.start_s + o.duration_s for o in failures) - min(o.start_s for o in failures)

    def __str__(self) -> str:
        failures = Counter(outcome.what for outcome in self.failures)
        failed = ", ".join(f"{count}x {what}" for what, count in failures.items()) or "none"
        text = f"{len(self.outcomes)} requests, failed: {failed}"
        return text + (f" within {self.outage_s:.1f} s" if failures else "")

    def _upload(self) -> None:
        with httpx.Client(timeout=TIMEOUT_S, headers=self.headers) as client:
            while not self._stopped.wait(self.pause_s):
                start_s = time.monotonic()
                try:
                    answer = client.post(self.url, files={"file": ("street.jpg", self.picture, "image/jpeg")})
                    what = str(answer.status_code)
                except httpx.HTTPError as error:
                    what = type(error).__name__
                else:
                    if answer.is_success:
                        self.masks[answer.headers["X-Model-Name"]].add(answer.content)
                self.outcomes.append(Outcome(start_s, time.monotonic() - start_s, what))
