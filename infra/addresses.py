"""Which network addresses we connect to when strangers name the host: public ones, and nothing inside
but what the operator allowed (infra/allowance.py).

The check is made on the very address that is connected to: a name is resolved once, every result is
checked, and the connection goes to a checked result by its number. A name that resolves differently the
second time gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Final, TypeAlias

import httpcore
import structlog
from msgspec import Struct

from infra.allowance import Address, Allowance
from infra.errors import Invalid, UpstreamFailed

Resolve: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""(host, port) -> the addresses of the host, in order of preference. Raises `OSError` when there are none."""

WEB_PORTS: Final = frozenset({80, 443})

_log = structlog.get_logger(__name__)

_MAX_ADDRESSES: Final = 4
# Beyond what `ipaddress` calls not global: IETF protocol assignments and the retired 6to4 relay, and the
# address at which Azure's hosts answer their guests, public by number only.
_REFUSED_V4: Final = tuple(
    ipaddress.IPv4Network(network) for network in ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")
)
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
# Tunnels that carry an IPv4 address inside (Teredo, 6to4), benchmarking, ORCHID, documentation.
_REFUSED_V6: Final = tuple(
    ipaddress.IPv6Network(network) for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class BlockedAddress(Invalid):
    """The address itself is not on the public internet, or the host is not to be reached on that port."""

    code: ClassVar[str] = "blocked_address"
    title: ClassVar[str] = "The address is not public"


class UnknownHost(UpstreamFailed):
    """The name server knows no such host on the public internet, or does not answer."""

    # Which names there are inside is nobody's business: one that leads inward is told as one that there is not.
    code: ClassVar[str] = "unknown_host"
    title: ClassVar[str] = "The host is not known"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"The host {host} is not known on the public internet. Check the address; a file can be uploaded instead. "
            "Who runs this installation can allow a host inside (KINDRED_FETCH_ALLOW)."
        )


def is_public(address: Address) -> bool:
    """Whether an address is one of the open internet, so that no inner service can stand behind it.

    IPv4 inside IPv6 (mapped, RFC 4291; NAT64, RFC 6052) is judged as the IPv4 address that would be reached;
    other tunnels are refused outright.
    """
    address = _reached(address)
    if isinstance(address, ipaddress.IPv4Address):
        refused = any(address in network for network in _REFUSED_V4)
        return address.is_global and not address.is_multicast and not address.is_reserved and not refused
    if address not in _GLOBAL_V6 or any(address in network for network in _REFUSED_V6):
        return False
    return address.is_global


def _reached(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


class SystemResolver:
    """The machine's own resolver in threads of its own: a name server that hangs holds up nothing else."""

    def __init__(self, *, threads: int = 8) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    def close(self) -> None:
        """Give the threads back; a look-up under way ends when the system gives it up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        """The addresses of `host`; `OSError` (`socket.gaierror`) when it has none."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]


def literal_address(host: str) -> Address | None:
    """The address that a host is, however it is written (`127.0.0.1`, `2130706433`, `0x7f.1`); None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


class Policy(Struct, frozen=True, kw_only=True):
    """What may be reached: the public internet on these ports (None: any), and what the operator allowed."""

    allow: tuple[Allowance, ...] = ()
    ports: frozenset[int] | None = WEB_PORTS

    def may_name(self, port: int) -> bool:
        """Whether some host may be reached on this port; which, the connection tells."""
        return self.ports is None or port in self.ports or any(each.port == port for each in self.allow)

    def permits(self, host: str, address: Address, port: int) -> bool:
        """Public and on a port of the web, or allowed by the operator."""
        if is_public(address) and (self.ports is None or port in self.ports):
            return True
        return self.allowed(host, address, port)

    def allowed(self, host: str, address: Address | None, port: int) -> bool:
        """Allowed by the operator, by name or by address where that is known."""
        stands_for = () if address is None else (address, _reached(address))
        return any(each.covers(host, stands_for, port, self.ports) for each in self.allow)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections for httpcore to checked addresses only. Everything that leaves goes through here."""

    def __init__(
        self,
        *,
        allow: Sequence[Allowance] = (),
        ports: Collection[int] | None = WEB_PORTS,
        resolve: Resolve | None = None,
        inner: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        """`ports` are those that an address may name without an allowance of its own; None: any."""
        self.policy = Policy(allow=tuple(allow), ports=None if ports is None else frozenset(ports))
        self._resolve: Resolve = resolve or SystemResolver()
        self._inner = inner or httpcore.AnyIOBackend()

    def close(self) -> None:
        """Give the resolver's threads back."""
        if isinstance(self._resolve, SystemResolver):
            self._resolve.close()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve once, check every result, connect to one of them by its number."""
        addresses = await self._addresses(host, port)
        # One forbidden result condemns the name: no honest shop mixes public and inner addresses, and whoever
        # does is fishing for a client that falls back to the second.
        if not all(self.policy.permits(host, address, port) for address in addresses):
            if all(map(is_public, addresses)):
                raise BlockedAddress(
                    f"{host} is not reached on port {port}. Use 80 or 443; a file can be uploaded instead."
                )
            if literal_address(host) is None:
                _log.warning("addresses.name_leads_inward", host=host)
                raise UnknownHost(host)
            raise BlockedAddress(
                f"{host} is not on the public internet, so nothing is fetched from it or sent to it. "
                "Use a public address; a file can be uploaded instead."
            )
        failure: Exception | None = None
        for address in addresses[:_MAX_ADDRESSES]:
            try:
                return await self._inner.connect_tcp(
                    str(address), port, timeout, local_address=local_address, socket_options=socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"no address for {host}")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Never: no address of the outside is a file."""
        raise BlockedAddress("Local sockets are not fetched.")

    async def sleep(self, seconds: float) -> None:
        """As the inner backend sleeps (httpcore's back-off)."""
        await self._inner.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[Address]:
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            pass
        try:
            # `2130706433`, `0x7f.1` and `017700000001` are addresses to the system's resolver: what they
            # mean is checked like any other result.
            found = await self._resolve(host, port)
            # A scope ("%eth0") belongs to link-local addresses only, which are refused without it too.
            return [ipaddress.ip_address(each.partition("%")[0]) for each in found]
        except (OSError, UnicodeError, ValueError) as error:
            raise UnknownHost(host) from error
