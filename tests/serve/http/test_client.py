"""Who asks, and who only pretends."""

from ipaddress import ip_network
from typing import Any

import pytest

from roadseg_serve.http.client import address_of

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        # A client that writes the header itself is not believed.
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("192.0.2.1", ["10.0.0.9, 198.51.100.7"], "192.0.2.1"),
        # A trusted proxy is, for the one who asked it.
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        # What the client wrote before that is not.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.5", "198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["10.9.9.9, 198.51.100.7"], "198.51.100.7"),
        # Two proxies in a row; a request from within.
        ("10.0.0.1", ["203.0.113.5, 198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # No addresses: the last that was understood.
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["198.51.100.7, , 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
    ],
)
def test_the_client_is_the_first_before_the_trusted_proxies(peer: str, forwarded: list[str], expected: str) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in forwarded]
    scope: dict[str, Any] = {"type": "http", "client": (peer, 1), "headers": headers}
    assert address_of(scope, TRUSTED) == expected


def test_a_server_on_a_file_has_no_address_of_its_client() -> None:
    assert address_of({"type": "http", "client": None, "headers": []}, TRUSTED) == "unknown"
