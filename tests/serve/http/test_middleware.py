"""The address of a client behind proxies, as it appears in the log."""

import asyncio
import logging

import httpx
import pytest

from roadseg_serve.settings import GateArgs
from tests.serve.gated import api_of

TRUSTED = GateArgs.model_validate({"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]})


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # A client that writes the header itself is not believed.
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.9, 198.51.100.7"], "192.0.2.1"),
        # A trusted proxy is, about its own client.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        # Whatever that client wrote before is not.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
        # Two proxies in a row; a request from inside.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # An entry that is no address; an empty one.
        ("10.0.0.1", ["unknown"], "unknown"),
        ("10.0.0.1", ["198.51.100.7, , 10.0.0.2"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
)
def test_the_client_is_the_last_address_before_the_trusted_proxies(
    peer: str, forwarded: list[str], expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert address_in_log(peer, forwarded, TRUSTED, caplog) == expected


def test_without_trusted_proxies_the_header_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    assert address_in_log("127.0.0.1", ["198.51.100.7"], GateArgs(), caplog) == "127.0.0.1"


def address_in_log(peer: str, forwarded: list[str], gate: GateArgs, caplog: pytest.LogCaptureFixture) -> str:
    async def once() -> None:
        transport = httpx.ASGITransport(api_of(gate), client=(peer, 12345))
        async with httpx.AsyncClient(transport=transport, base_url="http://roadseg") as client:
            await client.get("/nowhere", headers=[("X-Forwarded-For", line) for line in forwarded])

    with caplog.at_level(logging.INFO, logger="ray.serve.roadseg"):
        asyncio.run(once())
    (line,) = (record for record in caplog.records if record.name == "ray.serve.roadseg")
    return str(line.__dict__["client"])
