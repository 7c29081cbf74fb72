"""Exports: all that a tenant has into one file of the blob store."""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog

from infra.blob import BlobStore
from infra.clock import Clock, utc_now
from infra.db import Database, TenantId, driver
from infra.errors import Overloaded
from tenants.jobs import ClaimedJob, finish
from tenants.portability.dump import bundle, count_erasures, dump
from tenants.portability.exports import ExportReport, export_key, export_prefix, kept_exports
from workers.training.child import sweep_scratch

log = structlog.get_logger(__name__)

_SCRATCH: Final = "kindred-export-"
_FORGOTTEN_S: Final = 3600.0
"""Of a folder to which no file was added for so long: its worker was killed. What people did lies in it."""


class ExportOvertaken(Overloaded):
    """A person was erased while the bundle was made: it is made anew, without that person."""

    code = "export_overtaken"
    title = "The export begins again"


class Exports:
    """The handler of export jobs. `folder`: where the files of one lie until they are in the blob store.

    `readers` has a connection for each that is made at once, and for nothing else: one is read in one transaction,
    which is as long as the shop is large. None: `database` has them.
    """

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        *,
        folder: Path,
        clock: Clock = utc_now,
        readers: Database | None = None,
    ) -> None:
        self._database = database
        self._readers = readers or database
        self._blobs = blobs
        self._folder = folder
        self._clock = clock

    async def sweep(self) -> int:
        """Remove what killed workers of this machine left; how many folders."""
        return await asyncio.to_thread(
            sweep_scratch, self._folder, now=self._clock().timestamp(), prefix=_SCRATCH, after_s=_FORGOTTEN_S
        )

    async def __call__(self, job: ClaimedJob) -> None:
        """Make the bundle; made twice it is the later one, whole. Raises ExportOvertaken."""
        self._folder.mkdir(parents=True, exist_ok=True)
        key = export_key(job.tenant_id, job.job_id)
        with TemporaryDirectory(prefix=_SCRATCH, dir=self._folder) as scratch:
            as_of = self._clock()
            dumped = await dump(self._readers, job.tenant_id, Path(scratch), now=as_of)
            info = await self._blobs.put(key, bundle(dumped, self._blobs), content_type="application/x-tar")
        async with self._database.tenant_session(job.tenant_id) as conn:
            # Asked after the file is there: whoever erases a person from now on takes it away.
            overtaken = await count_erasures(await driver(conn), job.tenant_id) != dumped.erasures
            if not overtaken:
                rows = {name: file.rows for name, file in dumped.files.items() if file.rows is not None}
                report = ExportReport(bytes=info.size, sha256=info.sha256, rows=rows, as_of=as_of)
                await finish(conn, job, "done", now=self._clock(), report=report)
        if overtaken:
            await self._blobs.delete(key)
            raise ExportOvertaken("A person was erased while the file was made; it is made anew.")
        log.info("exports.made", bytes=info.size)
        await self._drop_others(job.tenant_id)

    async def _drop_others(self, tenant_id: TenantId) -> None:
        async with self._database.tenant_session(tenant_id) as conn:
            kept = {export_key(tenant_id, each) for each in await kept_exports(conn, tenant_id)}
        async for key in self._blobs.iter_keys(export_prefix(tenant_id)):
            if key not in kept:
                await self._blobs.delete(key)
