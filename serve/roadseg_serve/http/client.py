"""Who asks: the address of the client, seen through the proxies that are trusted to tell it."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.datastructures import Headers
from starlette.types import Scope

Network = IPv4Network | IPv6Network


def address_of(scope: Scope, trusted_proxies: Sequence[Network]) -> str:
    """The address of the client.

    Every proxy adds to the end of `X-Forwarded-For` who asked it, and anyone may write what is before that. So the list
    is followed from its end, and no further than the first address that is not a trusted proxy's.

    Args:
        scope: of the request.
        trusted_proxies: networks of the proxies.
    """
    address, _port = scope.get("client") or ("unknown", 0)
    forwarded = ",".join(Headers(scope=scope).getlist("X-Forwarded-For"))
    for before in reversed([part.strip() for part in forwarded.split(",")]):
        if not _is_within(address, trusted_proxies) or not _is_address(before):
            break
        address = before
    return str(address)


def _is_within(address: str, networks: Sequence[Network]) -> bool:
    return _is_address(address) and any(ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
