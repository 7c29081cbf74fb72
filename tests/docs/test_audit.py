"""docs/audit.md names every action that the log may hold."""

import re
from pathlib import Path

from api.app import ROUTES
from api.contract import KEY

_PAGE = Path(__file__).parents[2] / "docs" / "audit.md"
_BY_COMMAND = {"tenant.create", "tenant.delete", "tenant.undelete", "tenant.plan"}
"""Noted where the shop is made, whoever asked."""
_BY_PAGE = {"member.invite", "member.withdraw", "member.join", "member.leave", "member.change", "member.remove"}
"""Noted by what the pages of the console do alone."""
_BY_WORKER = {"webhook.disable"}


def test_every_action_is_named() -> None:
    """Those that routes declare, those of commands and workers, and no other."""
    declared = {route.opt[KEY].audit for route in ROUTES if KEY in route.opt} - {None}
    table = _PAGE.read_text().partition("| action | when |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table)) == declared | _BY_COMMAND | _BY_PAGE | _BY_WORKER
