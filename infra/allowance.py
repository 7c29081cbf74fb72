"""What an operator lets be fetched from, and sent to, beside the public internet: `KINDRED_FETCH_ALLOW`."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final, Self, TypeAlias

from msgspec import Struct

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

# An IPv6 network with a port stands in brackets, as in an address of the web.
_ENTRY: Final = re.compile(r"\[(?P<six>[0-9a-fA-F:./]+)\](?::(?P<six_port>\d+))?|(?P<plain>[^:\s]+)(?::(?P<port>\d+))?")
_HOST: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*")


class Allowance(Struct, frozen=True, kw_only=True):
    """A host or a network, with a port or on the web's own (80 and 443).

    A host is the name as it stands in the address, and is trusted with whatever it resolves to; the names below it
    are others.
    """

    host: str | None = None
    network: Network | None = None
    port: int | None = None

    @classmethod
    def parse(cls, entry: str) -> Self:
        """`photos.lan`, `photos.lan:9000`, `10.0.0.0/8`, `10.1.2.3:8080`, `[fd00::/8]:8080`. Raises ValueError."""
        try:
            network: Network | None = ip_network(entry)  # an IPv6 network without brackets, too
        except ValueError:
            match = _ENTRY.fullmatch(entry)
            if match is None:
                raise ValueError(f"{entry!r} is no host or network, with or without a port") from None
            port = _port(match["six_port"] or match["port"])
            name = match["six"] or match["plain"]
        else:
            return cls(network=network)
        if match["six"] or "/" in name or re.fullmatch(r"[\d.]+", name):
            return cls(network=ip_network(name), port=port)
        name = name.lower().rstrip(".")
        if not _HOST.fullmatch(name):
            raise ValueError(f"{entry!r} is no host name; write it as in DNS, without a scheme, path or *")
        return cls(host=name, port=port)

    def covers(self, host: str, addresses: tuple[Address, ...], port: int, web: frozenset[int] | None) -> bool:
        """Whether this allows `host`, of which `addresses` are one address and what it stands for, on that port.

        `web`: the ports without naming one; None: any.
        """
        if self.port is None:
            if web is not None and port not in web:
                return False
        elif self.port != port:
            return False
        if self.network is None:
            return host.lower().rstrip(".") == self.host
        return any(address in self.network for address in addresses)


def parse_allowances(raw: str) -> tuple[Allowance, ...]:
    """The entries of a comma-separated list. Raises ValueError."""
    return tuple(Allowance.parse(entry.strip()) for entry in raw.split(",") if entry.strip())


def _port(digits: str | None) -> int | None:
    if digits is None:
        return None
    port = int(digits)
    if not 1 <= port <= 65535:
        raise ValueError(f"{digits} is not a port: 1 to 65535")
    return port
