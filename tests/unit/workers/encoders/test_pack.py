"""Packs are checked whole before anything of them is run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.encoders.pack import BadPack, Pack, PackNotFound, load_pack, new_folder, seal_folder, verify_pack

MakePack = Callable[[str], Pack]


def test_a_sealed_pack_verifies(make_pack: MakePack) -> None:
    """What seal_folder wrote, verify_pack accepts and returns."""
    pack = make_pack("minilm")
    assert verify_pack(pack.folder) == pack


def test_a_changed_file_is_named_with_the_mend(make_pack: MakePack) -> None:
    """One changed byte is found; the error names file, pack and command."""
    pack = make_pack("minilm")
    path = pack.folder / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BadPack, match=r"model\.onnx of the pack tiny-minilm.*kindred models fetch tiny-minilm"):
        verify_pack(pack.folder)


def test_a_missing_file_is_named(make_pack: MakePack) -> None:
    """A file that the manifest lists and the folder lacks is a BadPack."""
    pack = make_pack("minilm")
    (pack.folder / "tokenizer.json").unlink()
    with pytest.raises(BadPack, match=r"tokenizer\.json .* is missing"):
        verify_pack(pack.folder)


def test_a_folder_without_manifest_is_no_pack(tmp_path: Path) -> None:
    """The error says what to name instead."""
    with pytest.raises(PackNotFound, match="kindred models list"):
        load_pack(tmp_path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_manifest_cannot_name_files_outside(make_pack: MakePack, name: str) -> None:
    """A pack from elsewhere reads nothing but its own folder."""
    pack = make_pack("minilm")
    path = pack.folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["files"][name] = "0" * 64
    path.write_text(json.dumps(manifest))
    with pytest.raises(BadPack, match="outside its folder"):
        load_pack(pack.folder)


def test_a_file_that_the_manifest_lacks_is_not_opened(make_pack: MakePack) -> None:
    """Only verified files are used."""
    pack = make_pack("minilm")
    (pack.folder / "stray.onnx").write_bytes(b"x")
    with pytest.raises(BadPack, match=r"stray\.onnx"):
        pack.file("stray.onnx")


def test_the_space_name_carries_the_revision(make_pack: MakePack) -> None:
    """Pack and twelve characters of the revision, so other weights are another space."""
    pack = make_pack("minilm")
    assert pack.space("text").name == f"tiny-minilm@{pack.manifest.revision[:12]}"


def test_other_files_are_another_revision(make_pack: MakePack) -> None:
    """seal_folder derives the revision from the files."""
    pack = make_pack("minilm")
    (pack.folder / "config.json").write_text("{}")
    sealed = seal_folder(pack.folder, name="tiny-minilm", kind="text", dim=8, licence="MIT")
    assert sealed.manifest.revision != pack.manifest.revision


def test_a_failed_build_leaves_the_old_folder(tmp_path: Path) -> None:
    """new_folder exchanges only when its block ends well, and leaves no scraps."""
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "old").touch()

    def build() -> None:
        with new_folder(folder) as staging:
            (staging / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        build()
    assert [p.name for p in tmp_path.iterdir()] == ["pack"]
    assert [p.name for p in folder.iterdir()] == ["old"]
