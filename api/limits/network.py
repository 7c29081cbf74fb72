"""Which network a client is in: what strangers are told apart by. No address leaves this module."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

_V4_BITS: Final = 24
_V6_BITS: Final = 48
"""What one customer of a provider usually has at least (RFC 6177)."""

_HOPS: Final = 10
"""Entries of X-Forwarded-For that are read, from the nearest on."""

_KNOWN: Final = 20_000

Address = IPv4Address | IPv6Address


class Networks:
    """Names client networks by keyed hashes, so that neither the database nor a log holds an address."""

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network], *, secret: bytes) -> None:
        """`trusted` are the networks of the proxies whose X-Forwarded-For is believed."""
        self._trusted = tuple(trusted)
        self._key = blake2b(b"client networks", key=secret[:64], digest_size=32).digest()
        self._name = lru_cache(maxsize=_KNOWN)(self._hash)

    def of(self, peer: str | None, forwarded: str | None) -> bytes:
        """The network of a client: `peer` is who is connected, `forwarded` the header that it sent.

        The nearest address that is no proxy's counts: what stands before it, anybody may have made up.
        """
        if not self._trusted or forwarded is None:
            return self._name(peer or "")
        address = parse_address(peer or "")
        if address is None or not self._is_proxy(address):
            return self._name(peer or "")
        nearest = address
        for entry in reversed(forwarded.split(",")[-_HOPS:]):
            given = parse_address(entry)
            if given is None:
                break
            nearest = given
            if not self._is_proxy(given):
                break
        return self._name(str(nearest))

    def _is_proxy(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)

    def _hash(self, text: str) -> bytes:
        address = parse_address(text)
        if address is None:  # a Unix socket, or a test
            network = b"local"
        elif isinstance(address, IPv4Address):
            network = b"4" + address.packed[: _V4_BITS // 8]
        else:
            network = b"6" + address.packed[: _V6_BITS // 8]
        return blake2b(network, key=self._key, digest_size=16).digest()


def parse_address(text: str) -> Address | None:
    """An address as X-Forwarded-For has it, with or without a port; IPv4 inside IPv6 is IPv4. None where it is none."""
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
