"""infra.addresses: nothing but the public internet, however an inner address is written or hidden."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.addresses import (
    BlockedAddress,
    GuardedBackend,
    SystemResolver,
    UnknownHost,
    is_public,
)
from infra.allowance import Allowance, parse_allowances

# Taken before the guard of the tests, which takes other notations of 127.0.0.1 for names of the outside.
REAL_LOOKUP = socket.getaddrinfo

INNER = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
]
PUBLIC = [
    "8.8.8.8",
    "93.184.216.34",
    "2606:4700::6810:84e5",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
]

ADDRESSES = st.one_of(
    st.ip_addresses(),
    st.ip_addresses(v=4).map(lambda v4: ipaddress.IPv6Address((0xFFFF << 32) | int(v4))),
    st.ip_addresses(v=4).map(lambda v4: ipaddress.IPv6Address((0x64FF9B << 96) | int(v4))),
    st.ip_addresses(v=4).map(lambda v4: ipaddress.IPv6Address((0x2002 << 112) | int(v4) << 80)),
)


@pytest.mark.parametrize("address", INNER)
def test_inner_addresses(address: str) -> None:
    """Private, local, shared, reserved and multicast addresses are not public, nor are tunnels to them."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """Ordinary addresses are public, also written as IPv6 (a NAT64 network gives no others)."""
    assert is_public(ipaddress.ip_address(address))


@given(ADDRESSES)
def test_what_is_not_global_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Nothing that `ipaddress` calls not global is public."""
    if not address.is_global or address.is_multicast or address.is_unspecified or address.is_loopback:
        assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_a_hidden_ipv4_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    """Mapped and NAT64 forms are as public as the IPv4 address inside; 6to4 never is."""
    assert is_public(ipaddress.IPv6Address((0xFFFF << 32) | int(address))) == is_public(address)
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | int(address))) == is_public(address)
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | int(address) << 80))


class Recorder(httpcore.AsyncNetworkBackend):
    """Connects nowhere and remembers where to; addresses in `down` refuse."""

    def __init__(self, down: Sequence[str] = ()) -> None:
        self.connected: list[str] = []
        self.down = down

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        if host in self.down:
            raise httpcore.ConnectError("refused")
        return httpcore.AsyncMockStream([])


def answers(*results: Sequence[str]) -> object:
    """A resolver that gives another answer each time."""
    left = list(results)

    async def resolve(host: str, port: int) -> Sequence[str]:
        return left.pop(0)

    return resolve


def test_the_checked_address_is_the_one_connected_to() -> None:
    """The name is resolved once, and the connection goes to the number."""
    recorder = Recorder()
    backend = GuardedBackend(resolve=answers(["93.184.216.34"]), inner=recorder)  # type: ignore[arg-type]
    asyncio.run(backend.connect_tcp("shop.example", 443))
    assert recorder.connected == ["93.184.216.34"]


def test_a_name_that_turns_inward() -> None:
    """A name that is public at the first look and private at the second is refused at the second."""
    recorder = Recorder()
    backend = GuardedBackend(
        resolve=answers(["93.184.216.34"], ["127.0.0.1"]),  # type: ignore[arg-type]
        inner=recorder,
    )
    asyncio.run(backend.connect_tcp("shop.example", 443))
    with pytest.raises(UnknownHost):
        asyncio.run(backend.connect_tcp("shop.example", 443))
    assert recorder.connected == ["93.184.216.34"]


def test_a_name_with_a_public_and_an_inner_address() -> None:
    """One inner address among public ones condemns the name: nothing is connected to."""
    recorder = Recorder()
    backend = GuardedBackend(
        resolve=answers(["93.184.216.34", "10.0.0.1"]),  # type: ignore[arg-type]
        inner=recorder,
    )
    with pytest.raises(UnknownHost, match=r"shop\.example"):
        asyncio.run(backend.connect_tcp("shop.example", 80))
    assert recorder.connected == []


def test_the_inner_address_is_not_told() -> None:
    """The error names the host but not the address behind it, which is the network's business."""
    backend = GuardedBackend(resolve=answers(["10.11.12.13"]), inner=Recorder())  # type: ignore[arg-type]
    with pytest.raises(UnknownHost) as caught:
        asyncio.run(backend.connect_tcp("inner.example", 80))
    assert "10.11" not in caught.value.detail


def test_the_next_address_is_tried() -> None:
    """When the first of several public addresses refuses, the next is tried."""
    recorder = Recorder(down=["2606:4700::1"])
    backend = GuardedBackend(
        resolve=answers(["2606:4700::1", "8.8.8.8"]),  # type: ignore[arg-type]
        inner=recorder,
    )
    asyncio.run(backend.connect_tcp("shop.example", 80))
    assert recorder.connected == ["2606:4700::1", "8.8.8.8"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0"])  # noqa: S104
def test_literal_addresses(host: str) -> None:
    """An address in place of a name is checked without asking anybody."""
    with pytest.raises(BlockedAddress):
        asyncio.run(GuardedBackend(inner=Recorder()).connect_tcp(host, 80))


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "017700000001", "0x7f.1", "127.1", "0177.0.0.01"])
def test_other_notations_of_an_ipv4(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decimal, octal, hexadecimal and shortened forms of 127.0.0.1 are 127.0.0.1."""
    monkeypatch.setattr(socket, "getaddrinfo", REAL_LOOKUP)
    with pytest.raises(BlockedAddress):
        asyncio.run(GuardedBackend(inner=Recorder()).connect_tcp(host, 80))


def test_a_link_local_with_a_scope() -> None:
    """A scope on a link-local result does not hide it."""
    backend = GuardedBackend(resolve=answers(["fe80::1%eth0"]), inner=Recorder())  # type: ignore[arg-type]
    with pytest.raises(UnknownHost):
        asyncio.run(backend.connect_tcp("shop.example", 80))


def test_an_allowed_network() -> None:
    """A network that the operator allowed is reached, mapped into IPv6 too; its neighbour is not."""
    recorder = Recorder()
    backend = GuardedBackend(allow=[Allowance.parse("192.168.7.0/24")], inner=recorder)
    asyncio.run(backend.connect_tcp("192.168.7.9", 80))
    asyncio.run(backend.connect_tcp("::ffff:192.168.7.9", 80))
    with pytest.raises(BlockedAddress):
        asyncio.run(backend.connect_tcp("192.168.8.9", 80))
    assert recorder.connected == ["192.168.7.9", "::ffff:c0a8:709"]


@pytest.mark.parametrize(
    ("allowed", "host", "port", "reached"),
    [
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 8080, False),
        ("10.0.0.0/8:8080", "10.1.2.3", 8080, True),
        ("10.0.0.0/8:8080", "10.1.2.3", 80, False),
        ("10.0.0.0/8:8080", "93.184.216.34", 8080, False),
        ("10.1.2.3:8080", "10.1.2.3", 8080, True),
        ("10.1.2.3:8080", "10.1.2.4", 8080, False),
        ("fd00::/8", "fd00::1", 80, True),
        ("[fd00::/8]:8080", "fd00::1", 8080, True),
        ("[fd00::/8]:8080", "fd00::1", 443, False),
        ("photos.lan", "photos.lan", 80, True),
        ("photos.lan", "photos.lan", 9000, False),
        ("photos.lan:9000", "photos.lan", 9000, True),
        ("Photos.LAN.:9000", "photos.lan", 9000, True),
        ("photos.lan:9000", "a.photos.lan", 9000, False),
        ("photos.lan:9000", "photos.lan", 80, False),
        ("photos.lan:9000", "93.184.216.34", 9000, False),
        ("1.2.3.4:1,photos.lan:9000", "photos.lan", 9000, True),
    ],
)
def test_what_an_operator_allows(allowed: str, host: str, port: int, reached: bool) -> None:
    """The host or network on its port, or on the web's; nobody else on that port."""
    recorder = Recorder()
    backend = GuardedBackend(
        allow=parse_allowances(allowed),
        resolve=answers(["192.168.1.1"]),  # type: ignore[arg-type]
        inner=recorder,
    )
    if reached:
        asyncio.run(backend.connect_tcp(host, port))
    else:
        with pytest.raises(UnknownHost if host.endswith(".lan") else BlockedAddress):
            asyncio.run(backend.connect_tcp(host, port))
    assert bool(recorder.connected) == reached


@pytest.mark.parametrize(
    "raw",
    [
        "http://photos.lan",
        "photos.lan/x",
        "*.lan",
        "photos.lan:0",
        "photos.lan:70000",
        "10.0.0.1/8",
        "fd00::1]:80",
        "a b",
    ],
)
def test_an_allowance_that_means_nothing(raw: str) -> None:
    """It is refused at start rather than read in some way."""
    with pytest.raises(ValueError, match=r"."):
        parse_allowances(raw)


def test_a_name_nobody_knows() -> None:
    """A failing look-up is a failure that may pass, with the host named."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        raise OSError("no such host")

    with pytest.raises(UnknownHost, match=r"nowhere\.example"):
        asyncio.run(GuardedBackend(resolve=resolve, inner=Recorder()).connect_tcp("nowhere.example", 80))


def test_a_name_inside_is_told_as_one_that_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    """To the letter, so that nobody asks our name server for what is inside; the log tells the operator."""

    async def resolve(host: str, port: int) -> Sequence[str]:
        if host == "billing.internal":
            return ["10.1.2.3"]
        raise socket.gaierror("no such host")

    told = []
    for host in ("billing.internal", "nothing.internal"):
        with pytest.raises(UnknownHost) as caught:
            asyncio.run(GuardedBackend(resolve=resolve, inner=Recorder()).connect_tcp(host, 80))
        told.append((caught.value.code, caught.value.title, caught.value.detail.replace(host, "HOST")))
    assert told[0] == told[1]
    assert "KINDRED_FETCH_ALLOW" in told[0][2]
    logged = capsys.readouterr().out
    assert "billing.internal" in logged
    assert "nothing.internal" not in logged


def test_local_sockets() -> None:
    """A socket file is never connected to."""
    with pytest.raises(BlockedAddress):
        asyncio.run(GuardedBackend(inner=Recorder()).connect_unix_socket("/run/docker.sock"))


def test_the_systems_resolver() -> None:
    """The default resolver gives the numbers that the system knows."""
    assert "127.0.0.1" in asyncio.run(SystemResolver()("localhost", 80)) or "::1" in asyncio.run(
        SystemResolver()("localhost", 80)
    )
