"""The headers of every answer: a request has the same id everywhere, and browsers are protected."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import RequestIdMiddleware, validate_http_proxy_callback_return
from starlette.types import ASGIApp, Receive, Scope, Send

from roadseg_serve.graph import ray_proxy
from roadseg_serve.http.api import WEB
from roadseg_serve.http.headers import page_policy
from roadseg_serve.messages import Answer, AnswerOptions
from roadseg_serve.settings import GateArgs
from tests.serve.gated import UPLOAD, api_of, ask

PREFLIGHT = {"Origin": "https://maps.example", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/health"), ("GET", "/nowhere"), ("GET", "/upload")]
)
def test_every_answer_forbids_sniffing(method: str, path: str) -> None:
    headers = ask(api_of(), method, path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"


def test_the_policy_allows_only_the_scripts_of_the_page() -> None:
    policy = page_policy('<style>a {}</style><script>say("hi")</script>')
    # printf 'say("hi")' | openssl dgst -sha256 -binary | base64
    assert "script-src 'sha256-RMTlMBIFStBQLTZ7Vy4etgkobFuSx08V3yV4zZ5GIA4=';" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize(("path", "name"), [("/", "index.html"), ("/status", "status.html")])
def test_the_pages_obey_their_policy(path: str, name: str) -> None:
    text = (WEB / name).read_text()
    policy = ask(api_of(), "GET", path).headers["content-security-policy"]
    assert policy.count("'sha256-") == text.count("<script") == 1
    assert not re.search(r"<[^>]+\son\w+=", text)  # a handler within a tag would not run


def test_other_origins_are_not_allowed() -> None:
    api = api_of()
    assert ask(api, "OPTIONS", "/upload", headers=PREFLIGHT).status_code == 405
    answer = ask(api, "POST", "/upload", headers={"Origin": "https://maps.example"}, **UPLOAD)
    assert "access-control-allow-origin" not in answer.headers


def test_listed_origins_are_allowed_even_with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROADSEG_KEYS", "sesame")
    api = api_of(GateArgs(api_keys_env="ROADSEG_KEYS", cors_origins=("https://maps.example",)))
    wanted = PREFLIGHT | {"Access-Control-Request-Headers": "authorization,x-api-key,x-request-id"}
    preflight = ask(api, "OPTIONS", "/upload", headers=wanted)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://maps.example"
    refusal = ask(api, "POST", "/upload", headers={"Origin": "https://maps.example"}, **UPLOAD)
    assert (refusal.status_code, refusal.headers["access-control-allow-origin"]) == (401, "https://maps.example")
    other = ask(api, "OPTIONS", "/upload", headers=PREFLIGHT | {"Origin": "https://elsewhere.example"})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


async def fail(_data: bytes, _options: AnswerOptions) -> Answer:
    await asyncio.sleep(0.1)
    raise RuntimeError


@pytest.mark.parametrize("sent", ["7", "a-b_c:d/e=", "~" * 128])
def test_a_client_gets_its_own_id_back(sent: str) -> None:
    response = ask(api_of(), "POST", "/upload", headers={"X-Request-ID": sent}, **UPLOAD)
    assert response.headers.get_list("x-request-id") == [sent]


@pytest.mark.parametrize("sent", [None, b"", b"x" * 129, b"a b", b"\xe9", b"a\tb", b'{"a": "b"}'])
def test_an_unsafe_id_is_replaced(sent: bytes | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = {ask(api_of(), "GET", "/health", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", made) for made in ids)


@pytest.mark.parametrize(
    ("method", "path", "status", "options"),
    [
        ("GET", "/nowhere", 404, {}),
        ("GET", "/upload", 405, {}),
        ("POST", "/upload", 422, {}),
        ("POST", "/upload", 500, UPLOAD),
        ("GET", "/v1/model", 401, {"gate": {"api_keys_env": "PATH"}}),
        ("POST", "/upload", 504, {"gate": {"request_timeout_s": 0.01}, **UPLOAD}),
    ],
)
def test_every_refusal_has_the_id_in_header_and_body(
    method: str, path: str, status: int, options: dict[str, Any]
) -> None:
    gate = GateArgs.model_validate(options.pop("gate", {}))
    response = ask(api_of(gate, fail), method, path, headers={"X-Request-ID": "seven"}, **options)
    assert response.status_code == status
    assert response.headers.get_list("x-request-id") == ["seven"]
    assert response.json()["request_id"] == "seven"


@pytest.mark.parametrize("sent", ["mine", "not mine", None])
def test_rays_proxy_uses_the_same_id(sent: str | None) -> None:
    seen = []

    def around(app: ASGIApp) -> ASGIApp:
        async def note(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(dict(scope["headers"])[b"x-request-id"].decode())
            await app(scope, receive, send)

        # As Ray's proxy does: its own, and around it what the callback names.
        wrapped: ASGIApp = RequestIdMiddleware(note)
        for ours in validate_http_proxy_callback_return(ray_proxy.middleware()):
            wrapped = ours.cls(wrapped, *ours.args, **ours.kwargs)
        return wrapped

    response = ask(around(api_of()), "GET", "/nowhere", headers={"X-Request-ID": sent} if sent else {})
    assert response.headers.get_list("x-request-id") == seen
    assert (seen == ["mine"]) == (sent == "mine")
    assert response.json()["request_id"] == seen[0]


def test_concurrent_requests_keep_their_ids() -> None:
    async def ask_all() -> list[str]:
        transport = httpx.ASGITransport(api_of())
        async with httpx.AsyncClient(transport=transport, base_url="http://roadseg") as client:
            answers = [client.post("/upload", headers={"X-Request-ID": str(n)}, **UPLOAD) for n in range(20)]
            return [answer.headers["x-request-id"] for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask_all()) == [str(n) for n in range(20)]
