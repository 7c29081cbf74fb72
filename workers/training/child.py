"""The parent's side of training: starts the child process, hears how far it is, and ends it when it must."""

import asyncio
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec
from msgspec import Struct

from infra.traces import PlainError

Task = Literal["neighbours", "behaviour"]
OnProgress = Callable[[int, int], Awaitable[None]]
"""Told how much is done of how much."""

_PREFIX: Final = "kindred-train-"
_TAIL: Final = 4000
_FORGOTTEN_S: Final = 86_400


class Usage(Struct, frozen=True, kw_only=True):
    """What the child took: the highest resident memory in MB, and seconds of CPU."""

    peak_mb: float
    cpu_s: float


class TrainingFailedError(PlainError):
    """The child ended badly; the message is the end of what it wrote, which is its error as the log may hold it."""


class StoppedError(Exception):
    """The worker is to end; another begins the job anew."""


@asynccontextmanager
async def scratch(parent: Path | None = None) -> AsyncIterator[Path]:
    """A folder for the files of one run, gone afterwards. `parent`: None takes the system's folder for such."""
    if parent is not None:
        await asyncio.to_thread(parent.mkdir, parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def sweep_scratch(parent: Path, *, now: float, prefix: str = _PREFIX, after_s: float = _FORGOTTEN_S) -> int:
    """Remove the folders that killed workers left so long ago; how many. `now`: seconds since 1970."""
    old = [each for each in parent.glob(f"{prefix}*") if each.stat().st_mtime < now - after_s]
    for each in old:
        shutil.rmtree(each, ignore_errors=True)
    return len(old)


async def run_child(
    task: Task, folder: Path, on_progress: OnProgress | None = None, *, stop: asyncio.Event | None = None
) -> Usage:
    """Run the task on the folder's files. Raises TrainingFailedError, and StoppedError once `stop` is set.

    When it is stopped or cancelled, the child is killed.
    """
    with (folder / "stderr").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "workers.training",
            task,
            str(folder),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
        )
    working = asyncio.create_task(_follow(process, on_progress))
    stopping = asyncio.create_task(_stopped(stop))
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise StoppedError
        code = await working
    finally:
        for task_ in (working, stopping):
            task_.cancel()
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code:
        tail = (folder / "stderr").read_bytes()[-_TAIL:].decode(errors="replace")
        raise TrainingFailedError(f"training ended with {code}: {tail}")
    return msgspec.json.decode((folder / "usage.json").read_bytes(), type=Usage)


async def _follow(process: asyncio.subprocess.Process, on_progress: OnProgress | None) -> int:
    assert process.stdout is not None
    async for line in process.stdout:
        if on_progress is not None:
            done, total = line.split()
            await on_progress(int(done), int(total))
    return await process.wait()


async def _stopped(stop: asyncio.Event | None) -> None:
    await (asyncio.Event() if stop is None else stop).wait()
