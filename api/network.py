"""Where a request comes from, as far as it can be believed."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any, Final, TypeAlias

from tenants.accounts.attempts import network_of

Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]

_HOPS: Final = 10
"""Entries of `X-Forwarded-For` that are read, from the nearest on."""


def client_address(scope: Any, trusted: Networks) -> str:
    """The client's address: of the connection, or the last one that `X-Forwarded-For` names before our proxies.

    Whoever connects may write that header, so it is read from its end, for as long as a trusted proxy vouches; what is
    no address ends it.
    """
    client = scope.get("client")
    address: str = client[0] if client else ""
    if not trusted:
        return address
    hops = [
        hop
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ][-_HOPS:]
    nearest = parse_address(address)
    while hops and nearest is not None and is_within(nearest, trusted):
        given = parse_address(hops.pop())
        if given is None:
            break
        nearest, address = given, str(given)
    return address


def client_network(scope: Any, trusted: Networks) -> str:
    """The network that the client counts for (`network_of`)."""
    return network_of(client_address(scope, trusted))


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """An address as `X-Forwarded-For` has it, with or without a port; IPv4 inside IPv6 is IPv4. None for none."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_within(address: IPv4Address | IPv6Address, networks: Networks) -> bool:
    """Whether an address is of one of these networks."""
    return any(address.version == network.version and address in network for network in networks)
