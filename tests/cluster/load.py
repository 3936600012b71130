"""Constant load, and what became of every request of it."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx

TIMEOUT_S = 60


@dataclass(frozen=True)
class Outcome:
    """One upload.

    Attributes:
        start_s: when it was sent, of time.monotonic().
        duration_s: until the whole answer was there.
        what: `200`, another status, or the name of what broke the connection.
        model: of the version that answered, where one did.
    """

    start_s: float
    duration_s: float
    what: str
    model: str | None


@dataclass
class Load:
    """Uploads of one picture by some clients at a time, until it is left.

    Attributes:
        url: of /upload, with what format is wanted.
        picture: what is uploaded.
        headers: such as the API key's.
        num_clients: requests at a time.
        pause_s: of each client between two requests.
        outcomes: so far.
    """

    url: str
    picture: bytes
    headers: dict[str, str]
    num_clients: int = 2
    pause_s: float = 0.1
    outcomes: list[Outcome] = field(default_factory=list)

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
        """All that was not answered with a mask."""
        return [outcome for outcome in self.outcomes if outcome.what != "200"]

    @property
    def models(self) -> Counter[str | None]:
        """How many each version answered."""
        return Counter(outcome.model for outcome in self.outcomes if outcome.what == "200")

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
                    what, model = str(answer.status_code), answer.headers.get("X-Model-Version")
                except httpx.HTTPError as error:
                    what, model = type(error).__name__, None
                self.outcomes.append(Outcome(start_s, time.monotonic() - start_s, what, model))
