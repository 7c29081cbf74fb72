"""Runs the text tower of a model pack, in the layouts in which optimum exports them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from workers.encoders.batcher import ROWS, TOKENS, plan_batches
from workers.encoders.pack import BadPack, Pack, Pooling
from workers.encoders.safetensors import read_safetensors
from workers.encoders.session import choose_output, open_session
from workers.encoders.types import FloatArray, Role, Space

_OUTPUTS = ("sentence_embedding", "text_embeds", "pooler_output", "last_hidden_state", "token_embeddings")
_POOLED = frozenset({"sentence_embedding", "text_embeds", "pooler_output"})
_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
_NO_LIMIT = 100_000
"""Tokenizer configurations say "no limit" by a number around 1e30."""
_CHARS_PER_TOKEN = 32
"""Longer texts are cut before they are tokenised: no language has so long pieces on average, and a
megabyte of text would otherwise be tokenised in full to keep its first 256 pieces."""


class OnnxTextEncoder:
    """A `TextEncoder` over one pack's text tower.

    Input names come from the session; pooling, length limit, prefixes and a dense layer after pooling from
    the pack's files. A text's vector does not depend on its neighbours in a batch beyond rounding.
    """

    def __init__(self, pack: Pack, *, threads: int = 1, tokens: int = TOKENS, rows: int = ROWS) -> None:
        """Open the session. `pack` must have been verified; raises `BadPack` where it cannot be run."""
        options = pack.manifest.text
        self._space = pack.space("text")
        self._prefix = {"query": options.query_prefix, "document": options.document_prefix}
        self._tokens = tokens
        self._rows = rows
        self.max_tokens = options.max_tokens or _max_tokens(pack)
        self.tokenizer = _open_tokenizer(pack.file(options.tokenizer), self.max_tokens)
        self._pad_id = _pad_id(pack, self.tokenizer)
        self._session = open_session(pack.file(options.model), threads=threads)
        self._inputs = [node.name for node in self._session.get_inputs()]
        unknown = [name for name in self._inputs if name not in _INPUTS and name != "pixel_values"]
        if unknown or "input_ids" not in self._inputs:
            raise BadPack(
                f"The text model of {pack.manifest.name} wants the inputs {', '.join(self._inputs)}; "
                f"those known are {', '.join(sorted(_INPUTS))}."
            )
        self._side = _picture_side(self._session)
        # Without a mask (SigLIP) the model reads its padding, so every text gets the full length, as in
        # training.
        self._masked = "attention_mask" in self._inputs
        self._output = choose_output(self._session, options.output, _OUTPUTS)
        rank = len(next(o.shape for o in self._session.get_outputs() if o.name == self._output))
        self._pooling: Pooling = options.pooling or _pooling(pack, self._output, rank)
        if rank == 2:
            self._pooling = "none"
        self._dense = _dense_layers(pack)

    @property
    def space(self) -> Space:
        """The space of the rows."""
        return self._space

    def encode(self, texts: Sequence[str], *, role: Role = "document") -> FloatArray:
        """`float32[len(texts), dim]`, rows L2-normalised, in the order of `texts`."""
        rows = np.zeros((len(texts), self._space.dim), np.float32)
        if not texts:
            return rows
        ids = self.tokenize(texts, role=role)
        lengths = [len(i) if self._masked else self.max_tokens for i in ids]
        for batch in plan_batches(lengths, tokens=self._tokens, rows=self._rows):
            rows[batch] = self._run([ids[i] for i in batch])
        return rows

    def tokenize(self, texts: Sequence[str], *, role: Role = "document") -> list[list[int]]:
        """Token ids of each text, with the role's prefix and special tokens, cut to `max_tokens`."""
        prefix, cut = self._prefix[role], self.max_tokens * _CHARS_PER_TOKEN
        encodings = self.tokenizer.encode_batch_fast([prefix + text[:cut] for text in texts])
        return [encoding.ids for encoding in encodings]

    def _run(self, ids: list[list[int]]) -> FloatArray:
        width = max([1, *map(len, ids)]) if self._masked else self.max_tokens
        tokens = np.full((len(ids), width), self._pad_id, np.int64)
        mask = np.zeros((len(ids), width), np.int64)
        for row, text in enumerate(ids):
            tokens[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feed: dict[str, NDArray[Any]] = {"input_ids": tokens, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feed["token_type_ids"] = np.zeros_like(tokens)
        if "position_ids" in self._inputs:
            feed["position_ids"] = np.broadcast_to(np.arange(width), tokens.shape).copy()
        if "pixel_values" in self._inputs:
            # CLIP exported whole wants a picture as well; its answer does not touch the text.
            feed["pixel_values"] = np.zeros((1, 3, *self._side), np.float32)
        output = self._session.run([self._output], {name: feed[name] for name in self._inputs})[0]
        pooled = _pool(np.asarray(output, np.float32), mask, self._pooling)
        # Some exports carry the dense layers in the graph: their sentence embedding has the final size.
        done = self._output in _POOLED and pooled.shape[1] == self._space.dim
        for weight, bias, tanh in [] if done else self._dense:
            pooled = pooled @ weight.T + bias
            if tanh:
                pooled = np.tanh(pooled)
        if pooled.shape != (len(ids), self._space.dim):
            raise BadPack(f"{self._space.name} answers {pooled.shape[1:]} numbers, not {self._space.dim}.")
        return normalise(pooled)


def _picture_side(session: Any) -> tuple[int, int]:
    """Height and width of the picture that a model exported whole wants beside its text."""
    for node in session.get_inputs():
        if node.name == "pixel_values":
            height, width = (side if isinstance(side, int) else 224 for side in node.shape[2:])
            return height, width
    return 224, 224


def normalise(rows: FloatArray) -> FloatArray:
    """Rows at length 1; rows of zeros stay zeros."""
    lengths = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return np.asarray(rows / lengths, np.float32)


def _pool(output: FloatArray, mask: NDArray[np.int64], pooling: Pooling) -> FloatArray:
    """One row per text of `output` (`[n, dim]` as it is, `[n, tokens, dim]` by `pooling`)."""
    if output.ndim == 2:
        return output
    if pooling in {"cls", "pooler"}:
        return output[:, 0]
    weights = mask[:, :, None].astype(np.float32)
    total: FloatArray = (output * weights).sum(axis=1)
    return np.asarray(total / np.maximum(weights.sum(axis=1), 1e-9), np.float32)


def _pooling(pack: Pack, output: str, rank: int) -> Pooling:
    """From sentence-transformers' own file; else what the output's name and shape imply."""
    if output in _POOLED or rank == 2:
        return "none"
    config = _config(pack, "1_Pooling/config.json")
    if config.get("pooling_mode_cls_token"):
        return "cls"
    if config.get("pooling_mode_mean_tokens") or not config:
        return "mean"
    modes = [name for name, on in config.items() if on is True]
    raise BadPack(f"The pack {pack.manifest.name} pools by {', '.join(modes)}; mean and cls are known.")


def _max_tokens(pack: Pack) -> int:
    """The shortest limit that the pack's files name; 512 where none does."""
    limits: list[object] = [512]
    for name, key in (
        ("sentence_bert_config.json", "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
        ("config.json", "max_position_embeddings"),
    ):
        limits.append(_config(pack, name).get(key))
    text_config = _config(pack, "config.json").get("text_config")
    if isinstance(text_config, dict):
        limits.append(text_config.get("max_position_embeddings"))
    usable = [int(v) for v in limits if isinstance(v, int | float) and 0 < v < _NO_LIMIT]
    return min(usable)


def _open_tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise BadPack(f"{path.name} is not a tokenizer: {str(error)[:200]}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return tokenizer


def _pad_id(pack: Pack, tokenizer: Tokenizer) -> int:
    """The id to pad with. Padding is masked, but CLIP's text tower finds the end of the text by its ids."""
    token = _config(pack, "tokenizer_config.json").get("pad_token")
    if isinstance(token, dict):
        token = token.get("content")
    found = tokenizer.token_to_id(token) if isinstance(token, str) else None
    if found is None:
        found = _config(pack, "config.json").get("pad_token_id")
    return int(found) if isinstance(found, int) else 0


def _dense_layers(pack: Pack) -> list[tuple[FloatArray, FloatArray, bool]]:
    """Dense layers after pooling (sentence-transformers' `2_Dense`): weight, bias, whether tanh follows."""
    layers = []
    for name in sorted(pack.manifest.files):
        folder, _, base = name.rpartition("/")
        if base != "model.safetensors" or not folder.endswith("_Dense"):
            continue
        config = _config(pack, f"{folder}/config.json")
        activation = str(config.get("activation_function", "Identity")).rpartition(".")[2]
        if activation not in {"Identity", "Tanh"}:
            raise BadPack(f"The pack {pack.manifest.name} has a dense layer with {activation}; not supported.")
        arrays = read_safetensors(pack.file(name))
        weight = np.array(arrays["linear.weight"], np.float32)
        bias = np.array(arrays.get("linear.bias", np.zeros(len(weight))), np.float32)
        layers.append((weight, bias, activation == "Tanh"))
    return layers


def _config(pack: Pack, name: str) -> dict[str, Any]:
    """One of the pack's JSON files; empty where it has none."""
    path = pack.find_file(name)
    if path is None:
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadPack(f"{name} of the pack {pack.manifest.name} is not JSON: {error}.") from error
    return config if isinstance(config, dict) else {}
