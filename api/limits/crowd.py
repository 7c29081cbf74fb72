"""How many calls of one tenant a process has at a time: bodies that are on their way, and calls that are answered.

A call counts as one that is answered once its body is whole: the body comes as slowly as the client likes, and the
publishable key of a shop is known to everybody. What is on its way has bounds of its own, by the kind of the key, so
that no browser takes the places of the shop's server, and few networks take all of the browsers'.
"""

from hashlib import blake2b
from typing import Any, Final

from api.network import Networks, client_network
from infra.errors import RateLimited
from infra.telemetry import Children, counter
from tenants.keys import Kind

MAX_AT_ONCE: Final = 100
"""Calls of one tenant that a process answers at a time. They share its connections (infra/turns.py)."""

MAX_UPLOADS: Final = 20
"""Of them, those that take a file of any size, which count from its first byte on: nobody sends gigabytes in vain."""

MAX_BODIES: Final = 100
"""Bodies on their way by the secret keys of one tenant; by its publishable ones half as many."""

MAX_NETWORK_BODIES: Final = 20
"""Of the bodies by publishable keys, those from one client network, beside the first few."""

FEW_BODIES: Final = 5

_CALL: Final = 1
_UPLOAD: Final = 2

decisions: Final = Children(counter("limit_decisions_total", "Calls by what the rate limits said.", ["outcome"]))
_refused: Final = decisions("refused")


class TooManyAtOnce(RateLimited):
    """So many calls of the tenant are being answered here that one more would wait too long; nothing was done."""

    code = "too_many_at_once"
    title = "Too many requests at once"


class Crowd:
    """What one tenant has in this process."""

    __slots__ = ("__weakref__", "bodies", "inside", "uploads")

    def __init__(self) -> None:
        self.inside = 0
        self.uploads = 0
        self.bodies: dict[Kind, set[Sent]] = {"secret": set(), "publishable": set()}


class Sent:
    """What a request has sent of its body so far, and with that its place: none yet, among the bodies on their way, or
    among the calls that are answered. A call without a tenant joins no crowd, and may do all that this offers.

    `whole`: whether that is all; `digest`: a running one, where it is wanted.
    """

    __slots__ = ("_bodies", "_crowd", "_inside", "_kind", "_network", "digest", "whole")

    def __init__(self) -> None:
        self.digest: blake2b | None = None
        self.whole = False
        self._crowd: Crowd | None = None
        self._inside = 0

    def join(self, crowd: Crowd, kind: Kind) -> None:
        """It is a call of that tenant, by a key of that kind."""
        self._crowd = crowd
        self._kind: Kind = kind
        self._bodies = crowd.bodies[kind]

    def begin(self, scope: Any, trusted: Networks, *, any_size: bool) -> None:
        """The body is read from here on; `any_size`: it is a file that goes elsewhere as it comes.

        Raises TooManyAtOnce.
        """
        crowd = self._crowd
        if crowd is None or self._inside:
            return
        if any_size:
            if crowd.uploads >= MAX_UPLOADS:
                _refuse(f"{MAX_UPLOADS} of your files are being taken here already")
            self.enter()
            crowd.uploads += 1
            self._inside = _UPLOAD
            return
        # Where there are few, nobody asks whose they are: it takes longer than most bodies do.
        bodies = self._bodies
        self._network = None if len(bodies) < FEW_BODIES else self._find_room(client_network(scope, trusted))
        bodies.add(self)

    def _find_room(self, network: str) -> str:
        public = self._kind == "publishable"
        if len(self._bodies) >= (MAX_BODIES // 2 if public else MAX_BODIES):
            _refuse(f"The bodies of {len(self._bodies)} of your calls are on their way here already")
        if public and sum(each._network == network for each in self._bodies) >= MAX_NETWORK_BODIES:
            _refuse(f"The bodies of {MAX_NETWORK_BODIES} calls from this network are on their way here already")
        return network

    def enter(self) -> None:
        """All that is read of its body is here: it is being answered. Raises TooManyAtOnce."""
        crowd = self._crowd
        if crowd is None or self._inside:
            return
        self._bodies.discard(self)
        if crowd.inside >= MAX_AT_ONCE:
            _refuse(f"{crowd.inside} of your calls are being answered here already")
        crowd.inside += 1
        self._inside = _CALL

    def leave(self) -> None:
        """It is answered, or given up."""
        crowd = self._crowd
        if crowd is None:
            return
        if not self._inside:
            self._bodies.discard(self)
            return
        crowd.inside -= 1
        if self._inside == _UPLOAD:
            crowd.uploads -= 1


def _refuse(why: str) -> None:
    _refused.inc()
    raise TooManyAtOnce(f"{why}. Nothing was done; send fewer at once.", retry_s=1)
