"""How many calls of one tenant a process has at a time: bodies that are on their way, and calls that are answered.

A call counts as one that is answered once its body is whole: the body comes as slowly as the client likes, and the
publishable key of a shop is known to everybody. What is on its way has bounds of its own, by the kind of the key, so
that no browser takes the places of the shop's server, and few networks take all of the browsers'.
"""

from typing import Any, Final

from api.auth import Caller
from api.network import Networks, client_network
from infra.errors import RateLimited
from infra.telemetry import Children, counter

MAX_AT_ONCE: Final = 100
"""Calls of one tenant that a process answers at a time. They share its connections (infra/turns.py)."""

MAX_UPLOADS: Final = 20
"""Of them, those that take a file of any size, which count from its first byte on: nobody sends gigabytes in vain."""

MAX_BODIES: Final = 100
"""Bodies on their way by the secret keys of one tenant; by its publishable ones half as many."""

MAX_NETWORK_BODIES: Final = 25
"""Of the bodies by publishable keys, those from one client network."""

decisions: Final = Children(counter("limit_decisions_total", "Calls by what the rate limits said.", ["outcome"]))
_refused: Final = decisions("refused")


class TooManyAtOnce(RateLimited):
    """So many calls of the tenant are being answered here that one more would wait too long; nothing was done."""

    code = "too_many_at_once"
    title = "Too many requests at once"


class Crowd:
    """What one tenant has in this process."""

    __slots__ = ("__weakref__", "inside", "public_bodies", "secret_bodies", "uploads")

    def __init__(self) -> None:
        self.inside = 0
        self.uploads = 0
        self.secret_bodies: set[Place] = set()
        self.public_bodies: set[Place] = set()


class Place:
    """One call's place: none yet, among the bodies on their way, or among the calls that are answered."""

    __slots__ = ("_bodies", "_crowd", "_inside", "_network", "_scope", "_trusted", "_upload")

    def __init__(self, crowd: Crowd, caller: Caller, scope: Any, trusted: Networks) -> None:
        self._crowd = crowd
        self._bodies = crowd.public_bodies if caller.kind == "publishable" else crowd.secret_bodies
        self._scope = scope
        self._trusted = trusted
        self._network: str | None = None
        self._inside = False
        self._upload = False

    def begin(self, *, any_size: bool) -> None:
        """The body is read from here on; `any_size`: it is a file that goes elsewhere as it comes.

        Raises TooManyAtOnce.
        """
        if any_size:
            if self._crowd.uploads >= MAX_UPLOADS:
                _refuse(f"{MAX_UPLOADS} of your files are being taken here already")
            self.enter()
            self._crowd.uploads += 1
            self._upload = True
        elif not self._inside:
            # Few are nobody's harm, and whose network each is need not be known.
            if len(self._bodies) >= MAX_NETWORK_BODIES:
                self._find_room()
            self._bodies.add(self)

    def _find_room(self) -> None:
        public = self._bodies is self._crowd.public_bodies
        if len(self._bodies) >= (MAX_BODIES // 2 if public else MAX_BODIES):
            _refuse(f"The bodies of {len(self._bodies)} of your calls are on their way here already")
        if public and sum(each.network == self.network for each in self._bodies) >= MAX_NETWORK_BODIES:
            _refuse(f"The bodies of {MAX_NETWORK_BODIES} calls from this network are on their way here already")

    @property
    def network(self) -> str:
        """The network that the call comes from."""
        if self._network is None:
            self._network = client_network(self._scope, self._trusted)
        return self._network

    def enter(self) -> None:
        """All that is read of its body is here: it is being answered. Raises TooManyAtOnce."""
        if self._inside:
            return
        self._bodies.discard(self)
        crowd = self._crowd
        if crowd.inside >= MAX_AT_ONCE:
            _refuse(f"{crowd.inside} of your calls are being answered here already")
        crowd.inside += 1
        self._inside = True

    def leave(self) -> None:
        """It is answered, or given up."""
        if self._inside:
            self._crowd.inside -= 1
            self._inside = False
            if self._upload:
                self._crowd.uploads -= 1
        else:
            self._bodies.discard(self)


def _refuse(why: str) -> None:
    _refused.inc()
    raise TooManyAtOnce(f"{why}. Nothing was done; send fewer at once.", retry_s=1)
