"""Headers for browsers."""

import re

import pytest

from roadseg_serve.http.api import WEB
from roadseg_serve.http.headers import page_policy
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
