"""Calls of the API as lines for a shell, to be copied and run: each is one command, whatever ids stand in it."""

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec


def curl_json(url: str, key: str, body: Any) -> str:
    """POST `body`, plain data, with that API key."""
    text = msgspec.json.format(msgspec.json.encode(body), indent=0).decode()
    return _curl(url, [*_bearer(key), "-H", "Content-Type: application/json"], ["-d", text])


def curl_file(url: str, key: str, name: str) -> str:
    """POST the file of that name, with that API key."""
    return _curl(url, _bearer(key), ["-H", "Content-Type: application/octet-stream", "--data-binary", f"@{name}"])


def _bearer(key: str) -> list[str]:
    return ["-H", f"Authorization: Bearer {key}"]


def _curl(url: str, *lines: Sequence[str]) -> str:
    return " \\\n  ".join(shlex.join(each) for each in (["curl", "-sS", "--fail-with-body", url], *lines))
