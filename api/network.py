"""Where a request comes from, as far as it can be believed."""

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from tenants.accounts.attempts import network_of


def client_address(scope: Any, trusted: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """The client's address: of the connection, or the last one that `X-Forwarded-For` names before our proxies.

    Whoever connects may write that header, so it is read from its end, for as long as a trusted proxy vouches.
    """
    client = scope.get("client")
    address: str = client[0] if client else ""
    if not trusted:
        return address
    hops = [
        hop.strip()
        for name, value in scope["headers"]
        if name == b"x-forwarded-for"
        for hop in value.decode("latin-1").split(",")
    ]
    while hops and _within(address, trusted):
        address = hops.pop()
    return address


def client_network(scope: Any, trusted: tuple[IPv4Network | IPv6Network, ...]) -> str:
    """The network that the client counts for (`network_of`)."""
    return network_of(client_address(scope, trusted))


def _within(address: str, networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    return any(ip.version == network.version and ip in network for network in networks)
