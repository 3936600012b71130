"""API keys: reading them, changing them, and what needs one."""

import hmac
import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from roadseg_serve.errors import KeysError
from roadseg_serve.http.keys import Keys, read_keys
from roadseg_serve.settings import GateArgs
from tests.serve.gated import UPLOAD, api_of, ask, open_socket

FIRST, SECOND = "first-key-of-alice", "second-key-of-bob"


def keys_in(folder: Path, text: str) -> Path:
    file = folder / "keys"
    file.write_text(text)
    return file


def keys_of(**settings: Any) -> Keys:
    keys = read_keys(GateArgs(**settings))
    assert keys is not None
    return keys


@pytest.fixture
def api(tmp_path: Path) -> FastAPI:
    return api_of(GateArgs(api_keys_file=keys_in(tmp_path, f"# of June\n{FIRST}\n\n{SECOND}\n")))


@pytest.mark.parametrize(
    "text",
    [f"{FIRST}\n{SECOND}", f"{FIRST},{SECOND}", f" {FIRST} , {SECOND},\r\n", f"# a, b\n{FIRST}\n  # c\n{SECOND}"],
)
def test_keys_are_separated_by_lines_or_commas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROADSEG_KEYS", text)
    for keys in (keys_of(api_keys_file=keys_in(tmp_path, text)), keys_of(api_keys_env="ROADSEG_KEYS")):
        # printf %s first-key-of-alice | sha256sum
        assert keys.find(FIRST) == "1fa262a9d162d08d9c9d01112f5d4b2b00f70e8ba8c62e62f137c712e369483b"
        assert keys.find(SECOND)
        for wrong in ("", "a", "# a", "c", FIRST[:-1], FIRST + " ", FIRST + SECOND, f"{FIRST},{SECOND}", "ключ"):
            assert keys.find(wrong) is None


@pytest.mark.parametrize("text", ["", "\n , \n", "# nothing\n", f"{FIRST} # of alice", f"{FIRST}\nключ"])
def test_missing_and_bad_keys_stop_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ROADSEG_KEYS", text)
    for args in (GateArgs(api_keys_file=keys_in(tmp_path, text)), GateArgs(api_keys_env="ROADSEG_KEYS")):
        with pytest.raises(KeysError) as caught:
            api_of(args)
        assert FIRST not in str(caught.value)


@pytest.mark.parametrize(
    "args", [{"api_keys_file": "/nowhere/keys"}, {"api_keys_file": ""}, {"api_keys_env": "NOT_SET"}]
)
def test_unreadable_keys_stop_the_start(args: dict[str, Any]) -> None:
    with pytest.raises(KeysError):
        api_of(GateArgs.model_validate(args))


def test_a_binary_key_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(KeysError, match="cannot be read"):
        keys_of(api_keys_file=tmp_path / "keys")


def test_a_changed_key_file_is_read_again(tmp_path: Path) -> None:
    file = keys_in(tmp_path, FIRST)
    keys = keys_of(api_keys_file=file)
    assert keys.find(FIRST)
    file.write_text(f"{FIRST}\n{SECOND}")
    assert keys.find(FIRST)
    assert keys.find(SECOND)
    (tmp_path / "new").write_text(SECOND)
    (tmp_path / "new").replace(file)
    assert keys.find(FIRST) is None
    assert keys.find(SECOND)


def test_an_updated_kubernetes_volume_is_read_again(tmp_path: Path) -> None:
    # keys -> ..data/keys, ..data -> a folder of its time; an update turns ..data. Both files may look alike.
    for folder, key in (("..2026_01", "key-1"), ("..2026_02", "key-2")):
        (tmp_path / folder).mkdir()
        os.utime(keys_in(tmp_path / folder, key), ns=(1, 1))
    (tmp_path / "..data").symlink_to("..2026_01")
    (tmp_path / "keys").symlink_to("..data/keys")
    keys = keys_of(api_keys_file=tmp_path / "keys")
    assert keys.find("key-1")
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert keys.find("key-1") is None
    assert keys.find("key-2")


@pytest.mark.parametrize("spoil", [lambda file: file.write_text(""), lambda file: file.unlink()])
def test_a_damaged_key_file_rejects_all_keys_until_it_is_fixed(tmp_path: Path, spoil: Any) -> None:
    file = keys_in(tmp_path, FIRST)
    keys = keys_of(api_keys_file=file)
    spoil(file)
    assert keys.find(FIRST) is None
    assert keys.find("") is None
    file.write_text(f"{SECOND}\n")
    assert keys.find(SECOND)


@pytest.mark.parametrize("key", [FIRST, SECOND, "wrong"])
def test_all_keys_are_compared_even_after_a_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    compared = []

    def compare(left: str, right: str) -> bool:
        compared.append((left, right))
        return left == right

    keys = keys_of(api_keys_file=keys_in(tmp_path, f"{FIRST}\n{SECOND}"))
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert (keys.find(key) is not None) == (key != "wrong")
    assert len(compared) == 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {FIRST}"},
        {"authorization": f"bearer  {SECOND}"},
        {"X-API-Key": SECOND},
        {"X-API-Key": FIRST, "Authorization": "Basic YWxpY2U6c2VzYW1l"},
    ],
)
def test_a_key_opens_the_routes(api: FastAPI, headers: dict[str, str]) -> None:
    response = ask(api, "POST", "/upload", headers=headers, **UPLOAD)
    assert response.content == b"mask of picture"
    assert response.headers["cache-control"] == "no-store"
    model = ask(api, "GET", "/v1/model", headers=headers)
    assert (model.status_code, FIRST in model.text) == (200, False)
    assert ask(api, "GET", "/nowhere", headers=headers).status_code == 404


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {FIRST[:-1]}"},
        {"Authorization": f"Basic {FIRST}"},
        {"Authorization": FIRST},
        {"X-API-Key": FIRST.upper()},
        {"X-API-Key": f"{FIRST},{SECOND}"},
        {"X-API-Key": "\x80\xff".encode("latin-1")},
        {"Cookie": f"X-API-Key={FIRST}"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/upload"),
        ("GET", "/v1/model"),
        ("POST", "/upload/"),
        ("POST", "/%2Fupload"),
        ("POST", "/static-offline-docs/../upload"),
        ("GET", "/v1/another"),
        ("GET", f"/upload?key={FIRST}"),
    ],
)
def test_requests_without_a_valid_key_get_401(api: FastAPI, method: str, path: str, headers: dict[str, Any]) -> None:
    response = ask(api, method, path, headers=headers)
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["type"] == "urn:roadseg:bad-key"
    assert FIRST not in response.text


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"])
def test_the_page_the_docs_and_the_health_are_open(api: FastAPI, path: str) -> None:
    assert ask(api, "GET", path).status_code == 200


def test_a_websocket_is_refused_before_it_opens(api: FastAPI) -> None:
    refusal = open_socket(api, "/stream", extensions={"websocket.http.response": {}})
    assert [message["type"] for message in refusal] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert refusal[0]["status"] == 401
    (close,) = open_socket(api, "/stream", extensions={})
    assert close == {"type": "websocket.close", "code": 4401, "reason": "API key needed"}


@pytest.mark.parametrize("offered", [["roadseg", f"key.{FIRST}"], [f"key.{SECOND}", "chat", "roadseg"]])
def test_a_browsers_websocket_sends_its_key_as_a_subprotocol(api: FastAPI, offered: list[str]) -> None:
    accept, *_ = open_socket(api, "/stream", {}, subprotocols=offered)
    assert (accept["type"], accept["subprotocol"]) == ("websocket.accept", "roadseg")


@pytest.mark.parametrize(
    "offered",
    [["roadseg"], ["roadseg", FIRST], ["key."], [f"key.{FIRST[:-1]}"], ["key.", f"key.{FIRST}"], [f"KEY.{FIRST}"]],
)
def test_other_subprotocols_do_not_open_a_websocket(api: FastAPI, offered: list[str]) -> None:
    (close,) = open_socket(api, "/stream", {}, subprotocols=offered)
    assert close == {"type": "websocket.close", "code": 4401, "reason": "API key needed"}


def test_openapi_says_how_a_key_is_sent(api: FastAPI) -> None:
    document = ask(api, "GET", "/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert {(scheme["type"], scheme.get("scheme"), scheme.get("name")) for scheme in schemes.values()} == {
        ("http", "bearer", None),
        ("apiKey", None, "X-API-Key"),
    }
    for path, method in (("/upload", "post"), ("/v1/model", "get")):
        assert document["paths"][path][method]["security"] == [{name: []} for name in schemes]
    assert "security" not in document["paths"]["/health"]["get"]
    assert "securitySchemes" not in ask(api_of(), "GET", "/openapi.json").json()["components"]
