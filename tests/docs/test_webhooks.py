"""docs/webhooks.md: its snippet verifies what we send, and it names every event and figure."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tenants.webhooks import schedule, signature
from tenants.webhooks.endpoints import MAX_ENDPOINTS
from tenants.webhooks.events import DATA

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
BODY = b'{"type": "webhook.test"}'


@pytest.fixture(scope="module")
def verify() -> Callable[[str, dict[str, str], bytes], None]:
    """The function of the page, as a reader would copy it."""
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    scope: dict[str, Any] = {}
    exec(compile(snippet, "docs/webhooks.md", "exec"), scope)  # noqa: S102 - the page is ours
    found: Callable[[str, dict[str, str], bytes], None] = scope["verify"]
    return found


def test_the_snippet_takes_what_we_send(verify: Any) -> None:
    """Also in a rotation, by either secret."""
    new, old = signature.new_secret(), signature.new_secret()
    made = signature.headers([new, old], "id", datetime.now(UTC), BODY)
    for key in (new, old):
        verify(signature.shown(key), made, BODY)


@pytest.mark.parametrize("spoil", ["body", "secret", "id", "old", "future", "version", "none"])
def test_the_snippet_refuses_the_rest(verify: Any, spoil: str) -> None:
    """What was changed, what is of another time, what is signed in another way."""
    key, now = signature.new_secret(), datetime.now(UTC)
    at = {"old": now - timedelta(minutes=6), "future": now + timedelta(minutes=6)}.get(spoil, now)
    made = signature.headers([key], "id", at, BODY)
    if spoil == "id":
        made["webhook-id"] = "other"
    if spoil == "version":
        made["webhook-signature"] = made["webhook-signature"].replace("v1,", "v1a,")
    if spoil == "none":
        made["webhook-signature"] = "v1,"
    with pytest.raises(ValueError, match=r"fits|old"):
        verify(
            signature.shown(signature.new_secret() if spoil == "secret" else key),
            made,
            BODY + b" " if spoil == "body" else BODY,
        )


@pytest.mark.parametrize("type_", DATA)
def test_every_event_is_in_the_table(type_: Any) -> None:
    """With every field of its data."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| `{type_}` |")]
    assert [name for name in DATA[type_].__struct_fields__ if f"`{name}`" not in row] == []


def test_the_figures_are_those_of_the_code() -> None:
    """Pauses and limits."""
    units = ((3600, "h"), (60, "min"), (1, "s"))
    pauses = []
    for pause in schedule.RETRIES:
        size, unit = next(each for each in units if pause.total_seconds() >= each[0])
        pauses.append(f"{pause.total_seconds() / size:g} {unit}")
    told = " ".join(PAGE.split())
    assert ", ".join(pauses[:-1]) + f" and {pauses[-1]}" in told
    assert f"within {schedule.TIMEOUT_S:g} seconds" in told
    assert f"at most {MAX_ENDPOINTS} webhooks" in told
