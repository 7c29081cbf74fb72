"""Real, tiny encoders; tenants with items; photos; and the worker as a process."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from infra.blob_folder import FolderBlobs
from infra.db import Database, TenantId, fetch
from tenants.catalog.item import Item
from tenants.catalog.store import upsert_items
from tenants.lifecycle import create_tenant, load_tenant
from workers.encoders.pack import seal_folder
from workers.jobs.generations import Keeper
from workers.models import Models, open_image, open_text, register

TEXT_DIM = 8
IMAGE_DIM = 6
SIDE = 4
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "green", "shoe", "shirt", "lamp", "mug", "the"]


def _table(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _write(path: Path, nodes: list[Any], inputs: list[Any], output: Any, constants: dict[str, Any]) -> None:
    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], initial)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), str(path))


def write_text_pack(folder: Path, *, seed: int = 1, name: str = "tiny-text") -> None:
    """Looks up a row for each word and takes their mean; knows a dozen words."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 16, "pad_token": "[PAD]"}))
    inputs = [
        helper.make_tensor_value_info(each, TensorProto.INT64, ["batch", "sequence"])
        for each in ("input_ids", "attention_mask")
    ]
    output = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "sequence", TEXT_DIM])
    node = helper.make_node("Gather", ["words", "input_ids"], ["last_hidden_state"])
    _write(folder / "model.onnx", [node], inputs, output, {"words": _table(seed, len(WORDS), TEXT_DIM)})
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    seal_folder(folder, name=name, kind="text", dim=TEXT_DIM, licence="MIT")


def write_image_pack(folder: Path, *, seed: int = 2, name: str = "tiny-image") -> None:
    """Sixteen pixels times a matrix."""
    folder.mkdir(parents=True)
    nodes = [
        helper.make_node("Flatten", ["pixel_values"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "look"], ["image_embeds"]),
    ]
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    output = helper.make_tensor_value_info("image_embeds", TensorProto.FLOAT, ["batch", IMAGE_DIM])
    _write(folder / "model.onnx", nodes, [pixels], output, {"look": _table(seed, 3 * SIDE * SIDE, IMAGE_DIM)})
    config = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_processor_type": "SiglipImageProcessor",
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SIDE, "width": SIDE},
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    seal_folder(folder, name=name, kind="image", dim=IMAGE_DIM, licence="MIT")


@pytest.fixture(scope="session")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packs `text`, `text2` and `image`."""
    folder = tmp_path_factory.mktemp("packs")
    write_text_pack(folder / "text")
    write_text_pack(folder / "text2", seed=3, name="tiny-text-two")
    write_image_pack(folder / "image")
    return folder


@pytest.fixture
def database_url(fresh_database_url: str) -> str:
    """A worker takes whatever waits, so no other test's items may wait."""
    return fresh_database_url


LoadModels = Callable[[str], Awaitable[Models]]


@pytest.fixture
def load(database: Database, packs: Path) -> LoadModels:
    """Load one of the text packs with the image pack."""

    async def load(name: str) -> Models:
        text, covers = open_text(str(packs / name), packs, 1)
        image = open_image(str(packs / "image"), packs, 1)
        return await register(database, text=text, image=image, covers=covers)

    return load


@pytest.fixture
async def tiny(load: LoadModels) -> Models:
    """The first text pack with the image pack."""
    return await load("text")


MakeShop = Callable[..., Awaitable[TenantId]]


@pytest.fixture
def make_shop(database: Database, tiny: Models, clock: Any) -> MakeShop:
    """Make a tenant with a generation and these items; with none, an empty one."""
    made = iter(range(1000))

    async def make(items: Sequence[dict[str, Any]] = ()) -> TenantId:
        tenant_id = await create_tenant(database, f"shop {os.urandom(6).hex()} {next(made)}")
        await Keeper(database, tiny).tick()
        await put(database, tenant_id, items, clock())
        return tenant_id

    return make


async def put(database: Database, tenant_id: TenantId, items: Sequence[dict[str, Any]], now: Any) -> None:
    """Store items."""
    async with database.tenant_session(tenant_id) as conn:
        tenant = await load_tenant(conn, tenant_id)
        await upsert_items(conn, tenant, [Item(**item) for item in items], now=now)


@pytest.fixture
def store_items(database: Database, clock: Any) -> Callable[..., Awaitable[None]]:
    """Store items of a tenant."""

    async def store(tenant_id: TenantId, items: Sequence[dict[str, Any]]) -> None:
        await put(database, tenant_id, items, clock())

    return store


Query = Callable[..., Awaitable[list[Any]]]


@pytest.fixture
def query(database: Database) -> Query:
    """Rows of a statement in a tenant's session; `$1` is the tenant."""

    async def run(tenant_id: TenantId, statement: str, *args: object) -> list[Any]:
        async with database.tenant_session(tenant_id) as conn:
            return [tuple(record) for record in await fetch(conn, statement, tenant_id, *args)]

    return run


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[FolderBlobs]:
    """A blob store of the test's own."""
    store = FolderBlobs(tmp_path / "blobs")
    yield store
    await store.aclose()


@pytest.fixture
def png() -> Callable[[int, int, int], bytes]:
    """The bytes of a PNG of one colour."""

    def paint(red: int, green: int, blue: int) -> bytes:
        file = io.BytesIO()
        Image.new("RGB", (12, 8), (red, green, blue)).save(file, "PNG")
        return file.getvalue()

    return paint


class Worker:
    """`python -m workers` in a process of its own."""

    def __init__(self, environment: dict[str, str], queues: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers", "--queues", queues],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "workers.ready" in line:
                return
        self.process.stderr.close()
        raise AssertionError("".join(self.lines) + f"exit {self.process.wait(30)}")

    def end(self, how: signal.Signals) -> int:
        """Send a signal; the exit code."""
        self.process.send_signal(how)
        assert self.process.stderr is not None
        self.lines += self.process.stderr.readlines()
        self.process.stderr.close()
        return self.process.wait(30)


StartWorker = Callable[..., Worker]


@pytest.fixture
def start_worker(database_url: str, packs: Path, tmp_path: Path) -> Iterator[StartWorker]:
    """Start a worker on the test's database; those that still run are killed at the end."""
    started: list[Worker] = []

    def start(queues: str = "encode,imports,upkeep", **environment: str) -> Worker:
        socket = tmp_path / "s"
        worker = Worker(
            {
                "DATABASE_URL": database_url,
                "KINDRED_DATA_DIR": str(tmp_path),
                "KINDRED_BLOB": (tmp_path / "blobs").as_uri(),
                "KINDRED_MODELS_TEXT": str(packs / "text"),
                "KINDRED_MODELS_IMAGE": str(packs / "image"),
                "KINDRED_ENCODER_URL": f"unix://{socket}{len(started)}",
                "KINDRED_LOG": "json",
                **environment,
            },
            queues,
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.process.poll() is None:
            worker.end(signal.SIGKILL)
