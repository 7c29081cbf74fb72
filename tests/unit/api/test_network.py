"""Where a request comes from is believed of the connection, and of proxies that are ours."""

from ipaddress import ip_network
from typing import Any

import pytest

from api.network import client_address

OURS = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def _scope(client: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {"client": None if client is None else (client, 1), "headers": headers}


@pytest.mark.parametrize(
    ("client", "forwarded", "address"),
    [
        ("203.0.113.7", (), "203.0.113.7"),
        ("203.0.113.7", ("198.51.100.1",), "203.0.113.7"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("6.6.6.6, 198.51.100.1, 10.0.0.2",), "198.51.100.1"),
        ("10.0.0.1", ("6.6.6.6", "198.51.100.1"), "198.51.100.1"),
        ("fd00::1", ("2001:db8::1",), "2001:db8::1"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("10.0.0.2",), "10.0.0.2"),
        ("10.0.0.1", ("nonsense",), "nonsense"),
        (None, ("198.51.100.1",), ""),
    ],
)
def test_only_our_proxies_are_believed(client: str | None, forwarded: tuple[str, ...], address: str) -> None:
    """From the end of the header, for as long as a proxy of ours vouches for what is before it."""
    assert client_address(_scope(client, *forwarded), OURS) == address


def test_without_proxies_the_header_is_nothing() -> None:
    """Anybody can write it."""
    assert client_address(_scope("10.0.0.1", "198.51.100.1"), ()) == "10.0.0.1"
