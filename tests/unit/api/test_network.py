"""Which network a client is in, and whose word is taken for it."""

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.network import client_network, parse_address

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def _scope(peer: str, *forwarded: str) -> Any:
    headers = [(b"x-forwarded-for", line.encode("latin-1", "replace")) for line in forwarded]
    return {"client": (peer, 4711), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", "198.51.100.7", "192.0.2.1"),  # no proxy of ours: anybody may send the header
        ("10.1.2.3", "198.51.100.7", "198.51.100.7"),
        ("10.1.2.3", "203.0.113.5, 198.51.100.7", "198.51.100.7"),  # what stands before was made up, or is behind it
        ("10.1.2.3", "198.51.100.7, 10.9.9.9", "198.51.100.7"),
        ("fd00::1", "[2001:db8::5]:4711, 10.9.9.9", "2001:db8::5"),
        ("10.1.2.3", "198.51.100.7:4711", "198.51.100.7"),
        ("10.1.2.3", "198.51.100.7, unknown", "10.1.2.3"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", ", ,", "10.1.2.3"),
        ("10.1.2.3", "10.4.4.4, 10.9.9.9", "10.4.4.4"),
        ("10.1.2.3", ", ".join(["198.51.100.7"] + ["10.9.9.9"] * 10), "10.9.9.9"),
        ("::ffff:10.1.2.3", "198.51.100.7", "198.51.100.7"),
    ],
)
def test_the_nearest_address_that_is_no_proxys_counts(peer: str, forwarded: str, client: str) -> None:
    """Only where a trusted proxy is connected; one line of the header or several."""
    expected = client_network(_scope(client), ())
    assert client_network(_scope(peer, forwarded), PROXIES) == expected
    assert client_network(_scope(peer, *forwarded.split(", ")), PROXIES) == expected


def test_neighbours_are_one_network() -> None:
    """/24 of IPv4, also inside IPv6, and /48 of IPv6."""

    def network(peer: str) -> str:
        return client_network(_scope(peer), ())

    assert network("192.0.2.1") == network("192.0.2.254") == network("::ffff:192.0.2.9")
    assert network("192.0.2.1") != network("192.0.3.1")
    assert network("2001:db8:1::1") == network("2001:db8:1:ffff::1")
    assert network("2001:db8:1::1") != network("2001:db8:2::1")
    assert network("") == network("/run/a.sock")


@given(peer=st.text(max_size=40), forwarded=st.text(max_size=200))
def test_no_header_breaks_it(peer: str, forwarded: str) -> None:
    """Whatever a client sends, it is in some network."""
    assert client_network(_scope(peer, forwarded), PROXIES)


@given(address=st.ip_addresses(), port=st.integers(0, 65535))
def test_addresses_are_read_with_and_without_a_port(address: object, port: int) -> None:
    """As proxies write them."""
    plain = parse_address(str(address))
    assert plain is not None
    assert parse_address(f"[{address}]:{port}") == plain
    if ":" not in str(address):
        assert parse_address(f" {address}:{port} ") == plain
