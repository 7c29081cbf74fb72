"""Packs by name, by folder, by S3 address."""

from pathlib import Path

import pytest

from workers.encoders.pack import PackNotFound
from workers.encoders.registry import (
    DEFAULT_IMAGE,
    DEFAULT_TEXT,
    PACKS,
    find_pack,
    list_packs,
    open_pack,
    pack_folder,
)


def test_the_defaults_are_known() -> None:
    """The offline packs are in the manifest, with the dimensions that the fused row is made of."""
    text, image = find_pack(DEFAULT_TEXT), find_pack(DEFAULT_IMAGE)
    assert text is not None
    assert image is not None
    assert (text.kind, text.dim, text.source) == ("text", 384, "built")
    assert (image.kind, image.dim, image.source) == ("image", 256, "repository")


def test_every_hub_file_is_pinned_to_a_commit() -> None:
    """No pack follows a branch: a moved branch would change vectors without a new space."""
    for pack in list_packs():
        for file in pack.files:
            revision = file.revision or pack.revision
            assert len(revision) == 40, (pack.name, file.path)
            int(revision, 16)
            assert file.sha256 is None or len(file.sha256) == 64
            # Weights are what must not be exchanged: theirs is always known beforehand.
            assert file.sha256 is not None or not file.path.endswith((".onnx", ".safetensors"))


def test_every_hub_pack_lists_what_its_encoders_open() -> None:
    """The model, its tokenizer and its preprocessing are among the files."""
    for pack in list_packs():
        if pack.source != "hub":
            continue
        paths = {file.path for file in pack.files}
        if pack.kind in {"text", "both"}:
            assert {pack.text.model, pack.text.tokenizer} <= paths
        if pack.kind in {"image", "both"}:
            assert {pack.image.model, "preprocessor_config.json"} <= paths


def test_names_folders_and_buckets_have_their_places(tmp_path: Path) -> None:
    """A known name lies in the models folder (or in Kindred), a folder is used in place, S3 gets a folder."""
    assert pack_folder("multilingual-e5-small", tmp_path) == tmp_path / "multilingual-e5-small"
    assert pack_folder("kindred-image-v1", tmp_path) == PACKS / "kindred-image-v1"
    assert pack_folder("/srv/packs/mine", tmp_path) == Path("/srv/packs/mine")
    assert pack_folder("./mine", tmp_path) == Path("mine")
    assert pack_folder("s3://Bucket/packs/mine/", tmp_path) == tmp_path / "s3-bucket-packs-mine"


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    """A typing error in a setting is answered with what there is."""
    with pytest.raises(PackNotFound, match="all-minilm-l6-v2, kindred-image-v1"):
        pack_folder("all-minilm", tmp_path)


def test_a_pack_that_is_not_here_names_the_command(tmp_path: Path) -> None:
    """open_pack never fetches: it says how to."""
    with pytest.raises(PackNotFound, match="kindred models fetch siglip2-base"):
        open_pack("siglip2-base", tmp_path)
