"""`kindred import`: uploads a feed, follows the job, uploads local photos, and says what became of every row."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from infra.errors import KindredError

LocalPhotos = Callable[[Path, str], Iterable[tuple[str, list[str]]]]
"""(feed, format) -> (item id, photo names as the feed has them), for rows whose photos are no addresses."""

_CONCURRENT: Final = 8
_POLL_S: Final = 0.2
_CHUNK: Final = 1 << 20
_TYPES: Final = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".avif": "image/avif",
}


class ImportRefused(KindredError):
    """The server refused the upload, or the job failed."""

    code = "import_refused"
    title = "The import did not succeed"


class Options(Struct, frozen=True, kw_only=True):
    """What to import, and how."""

    file: Path
    format: str = "auto"
    mode: str = "incremental"
    images_dir: Path | None = None


def progress_bar(console: Console) -> Progress:
    """The one look of all progress bars."""
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console
    )


def problem_text(answer: httpx.Response) -> str:
    """What a refused request says, for a terminal."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        return f"The server answered {answer.status_code}."
    return f"{problem.get('title', answer.status_code)}: {problem.get('detail', '')}"


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


async def import_feed(
    client: httpx.AsyncClient, options: Options, console: Console, *, local_photos: LocalPhotos
) -> int:
    """Import, and print the closing report. Returns the exit status: 0, or 1 when rows or photos were rejected."""
    query = {"format": options.format, "mode": options.mode, "file_name": options.file.name}
    answer = await client.post(
        "/v1/imports",
        params=query,
        content=_chunks(options.file),
        headers={"Content-Type": "application/octet-stream"},
    )
    if answer.status_code != httpx.codes.ACCEPTED:
        raise ImportRefused(problem_text(answer))
    job = await _follow(client, answer.json()["job_id"], console)
    photo_faults: list[str] = []
    if options.images_dir is not None:
        photo_faults = await _upload_photos(client, options, console, local_photos)
    await _report(client, job, photo_faults, console)
    if job["status"] == "held":
        console.print(
            f"[yellow]Held[/yellow]: it would remove {job['report'].get('would_remove', 'many')} items. "
            f"Confirm with POST /v1/imports/{job['job_id']}/confirm, or …/cancel."
        )
    return 0 if job["status"] == "done" and not job["failed"] and not photo_faults else 1


async def _follow(client: httpx.AsyncClient, job_id: str, console: Console) -> dict[str, Any]:
    with progress_bar(console) as bars:
        bar = bars.add_task("Importing", total=None)
        while True:
            answer = await client.get(f"/v1/jobs/{job_id}")
            if answer.status_code != httpx.codes.OK:
                raise ImportRefused(problem_text(answer))
            job: dict[str, Any] = answer.json()
            bars.update(bar, completed=job["done"] + job["failed"], total=job["total"])
            if job["status"] not in ("queued", "running"):
                return job
            await asyncio.sleep(_POLL_S)


async def _upload_photos(
    client: httpx.AsyncClient, options: Options, console: Console, local_photos: LocalPhotos
) -> list[str]:
    """Upload the photos that the feed names by file; returns what went wrong."""
    assert options.images_dir is not None
    folder = options.images_dir.resolve()
    faults: list[str] = []
    limit = asyncio.Semaphore(_CONCURRENT)

    async def upload(item_id: str, position: int, name: str) -> None:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder) or not path.is_file():
            faults.append(f"{item_id}: there is no photo {name} in {options.images_dir}")
            return
        async with limit:
            answer = await client.put(
                f"/v1/items/{quote(item_id, safe='')}/images/{position}",
                content=path.read_bytes(),
                headers={"Content-Type": _TYPES.get(path.suffix.lower(), "application/octet-stream")},
            )
        if not answer.is_success:
            faults.append(f"{item_id}: {name}: {problem_text(answer)}")

    rows = list(local_photos(options.file, options.format))
    with progress_bar(console) as bars:
        bar = bars.add_task("Uploading photos", total=sum(len(names) for _, names in rows))

        async def one(item_id: str, names: list[str]) -> None:
            for position, name in enumerate(names[:10]):
                await upload(item_id, position, name)
                bars.advance(bar)

        for start in range(0, len(rows), 200):
            await asyncio.gather(*(one(item_id, names) for item_id, names in rows[start : start + 200]))
    return faults


async def _report(client: httpx.AsyncClient, job: dict[str, Any], photo_faults: list[str], console: Console) -> None:
    """What was converted, what was rejected and why, what became of the columns."""
    console.print(f"[bold]{job['done']:,}[/bold] items stored, [bold]{job['failed']:,}[/bold] rows rejected.")
    columns = job["report"].get("columns", {})
    if columns:
        table = Table("column", "became", box=None, pad_edge=False)
        for name, use in list(columns.items())[:40]:
            why = f": {use['reason']}" if use.get("reason") else ""
            table.add_row(name, f"{use['use']} {use['field'] or ''}".strip() + why)
        console.print(table)
    if job["failed"] or job["report"].get("warnings"):
        answer = await client.get(f"/v1/jobs/{job['job_id']}/errors")
        faults = [msgspec.json.decode(line) for line in answer.content.splitlines() if line]
        counts = Counter((fault["severity"], fault["code"]) for fault in faults)
        table = Table("", "why", "rows", "for example", box=None, pad_edge=False)
        for (severity, code), count in counts.most_common(20):
            first = next(fault for fault in faults if fault["code"] == code)
            table.add_row(severity, code, str(count), f"line {first.get('line')}: {first['message']}")
        console.print(table)
    for fault in photo_faults[:10]:
        console.print(f"[yellow]photo[/yellow] {fault}")
    if len(photo_faults) > 10:
        console.print(f"… and {len(photo_faults) - 10} more photos.")
    if job.get("error"):
        console.print(f"[red]{job['error']}[/red]")
