"""The rate limit, on a fake clock."""

import time
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from roadseg_serve.settings import GateArgs
from tests.serve.gated import UPLOAD, api_of, ask, open_socket

MINUTE_BEGINS = 28_333_333 * 60.0  # s since 1970; windows begin at multiples of their length


class Clock:
    def __init__(self) -> None:
        self.time_s = MINUTE_BEGINS + 10

    def __call__(self) -> float:
        return self.time_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


@pytest.fixture
def gate() -> GateArgs:
    return GateArgs(rate_limit="2/minute")


def statuses(answers: list[httpx.Response]) -> list[int]:
    return [answer.status_code for answer in answers]


def test_requests_over_the_limit_are_refused_until_the_window_moves_on(clock: Clock, gate: GateArgs) -> None:
    api = api_of(gate)
    answers = [ask(api, "POST", "/upload", **UPLOAD) for _ in range(3)]
    assert statuses(answers) == [200, 200, 429]
    assert [answer.headers["ratelimit"] for answer in answers] == [
        '"client";r=1;t=50',
        '"client";r=0;t=50',
        '"client";r=0;t=50',
    ]
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"client";q=2;w=60'}
    assert answers[2].headers["retry-after"] == "50"
    assert answers[2].json()["type"] == "urn:roadseg:rate-limited"
    assert "50 s" in answers[2].json()["detail"]
    clock.time_s += 50 - 1
    assert ask(api, "GET", "/v1/model").status_code == 429
    # A second into the next minute, 59 seconds of the last are in the window, with 2 x 59 / 60 requests: one is free.
    clock.time_s += 2
    assert statuses([ask(api, "GET", "/v1/model") for _ in range(2)]) == [200, 429]
    clock.time_s += 120
    assert statuses([ask(api, "GET", "/v1/model") for _ in range(3)]) == [200, 200, 429]


@pytest.mark.usefixtures("clock")
def test_each_client_has_a_count_of_its_own(gate: GateArgs) -> None:
    api = api_of(gate)
    for peer in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"):
        assert statuses([ask(api, "GET", "/v1/model", peer) for _ in range(3)]) == [200, 200, 429]
    # The rest of an IPv6 network belongs to the same client.
    assert ask(api, "GET", "/v1/model", "2001:db8:0:1::2").status_code == 429


@pytest.mark.usefixtures("clock")
def test_a_forged_address_does_not_help() -> None:
    api = api_of(GateArgs.model_validate({"rate_limit": "2/minute", "trusted_proxies": ["10.0.0.0/8"]}))

    def forge(number: int, peer: str, by_proxy: str = "") -> int:
        headers = {"X-Forwarded-For": f"203.0.113.{number}{by_proxy}"}
        return ask(api, "GET", "/v1/model", peer, headers=headers).status_code

    assert [forge(number, "192.0.2.1") for number in range(3)] == [200, 200, 429]
    assert [forge(number, "10.0.0.1", ", 198.51.100.7") for number in range(3)] == [200, 200, 429]
    # Clients behind the proxy are told apart.
    assert [forge(number, "10.0.0.1") for number in range(3)] == [200, 200, 200]


@pytest.mark.usefixtures("clock")
def test_with_keys_the_key_is_the_client(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alice\nbob")
    api = api_of(GateArgs(rate_limit="2/minute", api_keys_file=tmp_path / "keys"))
    for key in ("alice", "bob"):
        peers = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
        assert statuses([ask(api, "GET", "/v1/model", peer, headers={"X-API-Key": key}) for peer in peers]) == [
            200,
            200,
            429,
        ]
    assert ask(api, "GET", "/v1/model").status_code == 401


@pytest.mark.usefixtures("clock")
def test_open_paths_are_not_counted_but_websockets_are(gate: GateArgs) -> None:
    api = api_of(gate)
    answers = [ask(api, "GET", path) for _ in range(3) for path in ("/", "/health", "/openapi.json")]
    assert set(statuses(answers)) == {200}
    assert "ratelimit" not in answers[0].headers
    opened = [open_socket(api, "/nowhere", {"websocket.http.response": {}})[0].get("status") for _ in range(3)]
    assert opened[2] == 429
    assert 429 not in opened[:2]


def test_without_a_limit_nothing_is_counted() -> None:
    api = api_of()
    answers = [ask(api, "GET", "/v1/model") for _ in range(50)]
    assert set(statuses(answers)) == {200}
    assert "ratelimit" not in answers[0].headers


@pytest.mark.parametrize("rate", ["", "10", "ten/second", "0/second", "10/blink", "10/second;100/hour"])
def test_an_invalid_rate_is_refused_with_the_settings(rate: str) -> None:
    with pytest.raises(ValidationError, match="rate_limit"):
        GateArgs(rate_limit=rate)


@pytest.mark.parametrize("rate", ["10/second", "10 per second", "1000/5minutes"])
def test_valid_rates(rate: str) -> None:
    assert GateArgs(rate_limit=rate).rate_limit == rate
