"""The doctor's table, its exit status, and the checks that need no database."""

import asyncio
import io
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from rich.console import Console

from infra.doctor import Check, Finding, disk_check, examine, fail, ok, probe_check, report, warn
from infra.errors import UpstreamFailed


def run(*checks: Check) -> list[Finding]:
    return [finding for _, finding in asyncio.run(examine(checks))]


def saying(finding: Finding) -> Callable[[], Awaitable[Finding]]:
    async def look() -> Finding:
        return finding

    return look


def shown(*findings: Finding) -> tuple[str, int]:
    out = io.StringIO()
    status = report([("thing", finding) for finding in findings], Console(file=out, width=120))
    return out.getvalue(), status


def test_report_says_what_and_how_to_mend() -> None:
    """Each line has the check, its state, what was found and how to mend it."""
    text, _ = shown(fail("no [vector]", "Install it."))
    assert all(word in text for word in ("thing", "fail", "no [vector]", "Install it."))


def test_only_a_failure_makes_the_status_1() -> None:
    """A warning is no reason for a deployment to stop."""
    assert shown(ok("a"), warn("b", "c"))[1] == 0
    assert shown(ok("a"), fail("b", "c"))[1] == 1


def test_check_that_breaks_is_a_finding() -> None:
    """An error that no check expected fails that check alone; the others still run."""

    async def broken() -> Finding:
        raise ZeroDivisionError("oops")

    first, second = run(Check(name="a", run=broken), Check(name="b", run=saying(ok("fine"))))
    assert (first.state, second.state) == ("fail", "ok")
    assert "oops" in first.what


def test_check_without_an_end_is_a_finding() -> None:
    """A check that never answers is given up."""

    async def endless() -> Finding:
        await asyncio.Event().wait()
        raise AssertionError

    ((_, finding),) = asyncio.run(examine([Check(name="a", run=endless)], patience_s=0.01))
    assert finding.state == "fail"
    assert "no answer" in finding.what


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(("free", "state"), [(6 << 30, "ok"), (2 << 30, "warn"), (1 << 29, "fail")])
def test_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, state: str) -> None:
    """Below 5 GiB the disk is a warning, below 1 GiB a failure; the folder need not exist yet."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10 << 30, 0, free))
    assert run(disk_check(tmp_path / "not" / "yet"))[0].state == state


def test_probe_passes_on_what_it_found() -> None:
    """A probe that returns is ok."""

    async def probe() -> str:
        return "2 packs verified"

    assert run(probe_check("packs", probe, mend="x")) == [ok("2 packs verified")]


@pytest.mark.parametrize("error", [UpstreamFailed("The bucket is away."), OSError("read-only file system")])
def test_probe_that_raises_says_how_to_mend_it(error: Exception) -> None:
    """Any error of a probe is a failure with the way to mend it."""

    async def probe() -> str:
        raise error

    (finding,) = run(probe_check("blob store", probe, mend="See KINDRED_BLOB."))
    assert finding.state == "fail"
    assert "See KINDRED_BLOB." in finding.mend
    assert str(error) in finding.what + finding.mend
