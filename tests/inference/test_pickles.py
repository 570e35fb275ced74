"""Pickles are known by their content, and models are not taken for them."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import random
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricated import make_classifier
from safetensors.torch import load_file, save_file

from ich_lstm import ScanClassifier
from ich_lstm.errors import CheckpointError
from ich_lstm.inference.pickles import is_pickle, pickle_in

LOOK_ALIKES = (640, 896, 1152, 1408)
"""Lengths whose two low bytes are 80 02 to 80 05, as a pickle of protocol 2 to 5 begins."""


class Attack:
    """Calls something when it is loaded."""

    def __reduce__(self) -> tuple:
        return print, ("loaded",)


OBJECTS: dict[str, Any] = {
    "values": {"a": 1, "b": [1.5, None, "text"]},
    "names": OrderedDict(a=np.float64(1.0)),
    "attack": Attack(),
}


def with_header_of(content: bytes, length: int) -> bytes:
    """The same safetensors with spaces behind the header, as the format allows, up to this length modulo 65536."""
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    padded = header + b" " * ((length - len(header)) % 65536)
    return len(padded).to_bytes(8, "little") + padded + content[8 + len(header) :]


def torch_zip(value: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def zip_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def array_of_objects() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Attack()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


class TestSafetensors:
    @pytest.mark.parametrize("length", [*LOOK_ALIKES, 65536 + 640, 0x4E8, 0x788, 0x9C78, 0x8B18])
    def test_a_saved_model_is_read_whatever_the_length_of_its_header(self, tmp_path: Path, length: int) -> None:
        classifier = make_classifier()
        classifier.save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        path.write_bytes(with_header_of(path.read_bytes(), length))
        assert int.from_bytes(path.read_bytes()[:2], "little") == length % 65536
        assert ScanClassifier.load(tmp_path).weights_hash() == classifier.weights_hash()

    def test_no_length_at_all_looks_like_a_pickle(self, tmp_path: Path) -> None:
        save_file({"weight": torch.arange(4.0)}, tmp_path / "small.safetensors")
        small = (tmp_path / "small.safetensors").read_bytes()
        for length in range(65536):
            assert not is_pickle(io.BytesIO(with_header_of(small, length)))

    @pytest.mark.parametrize("length", LOOK_ALIKES)
    def test_the_library_s_own_padding_by_metadata(self, tmp_path: Path, length: int) -> None:
        path = tmp_path / "padded.safetensors"
        for pad in range(length):
            save_file({"weight": torch.ones(2)}, path, metadata={"note": "x" * pad})
            if int.from_bytes(path.read_bytes()[:8], "little") == length:
                break
        assert path.read_bytes()[:2] == length.to_bytes(2, "little")
        assert pickle_in(path) is None

    def test_a_damaged_one_is_called_damaged(self, tmp_path: Path) -> None:
        make_classifier().save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        path.write_bytes(with_header_of(path.read_bytes(), 640)[:-50])
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.load(tmp_path)
        assert caught.value.code == "not_a_model"

    def test_one_that_is_a_pickle_as_well_is_refused(self, tmp_path: Path) -> None:
        # 80 02 58 03 as a length is also protocol 2 and a text of three bytes, which end with the header's quote. The name of the
        # tensor then is opcodes: two texts of 33 bytes, the second of which ends inside a letter; the import; and the call.
        length = int.from_bytes(b"\x80\x02X\x03", "little")
        name = b"U!" + b"m" * 33 + b"U!" + b"f" * 32 + "Ó".encode() + b")R"
        header = b'{"' + name + b'":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
        path = tmp_path / "model.safetensors"
        path.write_bytes(length.to_bytes(8, "little") + header.ljust(length) + b"\x00")
        assert len(load_file(path)) == 1
        assert pickle_in(path) == "a pickle"


class TestPickles:
    @pytest.mark.parametrize("protocol", range(6))
    @pytest.mark.parametrize("kind", OBJECTS)
    @pytest.mark.parametrize("name", ["notes.txt", "README", "model.safetensors", "further/LICENSE.md"])
    def test_of_every_protocol_under_any_name(self, tmp_path: Path, protocol: int, kind: str, name: str) -> None:
        make_classifier().save_pretrained(tmp_path)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(pickle.dumps(OBJECTS[kind], protocol))
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.load(tmp_path)
        assert caught.value.code == "pickle_in_model"
        assert name in caught.value.got

    @pytest.mark.parametrize("protocol", range(6))
    def test_that_call_something_and_then_break_off(self, tmp_path: Path, protocol: int) -> None:
        whole = pickle.dumps([Attack(), "x" * 50], protocol)
        (tmp_path / "notes.txt").write_bytes(whole[:-10])
        assert pickle_in(tmp_path / "notes.txt") is not None

    def test_by_hand_with_bytes_behind(self, tmp_path: Path) -> None:
        for content in (b"cbuiltins\nprint\n(S'x'\ntR.and text", b"(S'x'\nibuiltins\nprint\n.", b"\x80\x02N.and text"):
            (tmp_path / "notes.txt").write_bytes(content)
            assert pickle_in(tmp_path / "notes.txt") == "a pickle"

    @pytest.mark.parametrize(
        "wrap",
        [
            gzip.compress,
            bz2.compress,
            lzma.compress,
            lambda content: lzma.compress(content, format=lzma.FORMAT_ALONE),
            zlib.compress,
            lambda content: zlib.compress(content, 1),
            lambda content: gzip.compress(gzip.compress(content)),
            lambda content: zip_of("data", content),
            lambda content: zip_of("inner.zip", zip_of("data", content)),
            lambda content: tar_of("data", content),
            lambda content: gzip.compress(tar_of("data", content)),
        ],
        ids=["gzip", "bzip2", "xz", "lzma", "zlib", "zlib fast", "gzip twice", "zip", "zip in zip", "tar", "tar.gz"],
    )
    def test_in_archives_and_compressed(self, tmp_path: Path, wrap: Callable[[bytes], bytes]) -> None:
        for protocol in range(6):
            (tmp_path / "README.md").write_bytes(wrap(pickle.dumps(OBJECTS["values"], protocol)))
            assert pickle_in(tmp_path / "README.md") is not None
        (tmp_path / "README.md").write_bytes(wrap(b"A model of the head. " * 50))
        assert pickle_in(tmp_path / "README.md") is None

    @pytest.mark.parametrize(
        "content",
        [
            torch_zip({"a": torch.ones(2)}),
            torch_zip(Attack()),
            torch_zip({"a": torch.ones(2)}, zipped=False),
            array_of_objects(),
            b"PK\x03\x04 the start of a zip",
            torch_zip({"a": torch.ones(20)})[:-40],
            b"\x28\xb5\x2f\xfd what cannot be unpacked here",
        ],
        ids=["torch", "torch of an object", "torch before 1.6", "numpy", "zip's start", "zip without its end", "zstandard"],
    )
    def test_of_other_libraries_renamed(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.json.txt").write_bytes(content)
        assert pickle_in(tmp_path / "model.json.txt") is not None

    def test_archives_nested_without_end(self, tmp_path: Path) -> None:
        content = b"text"
        for _ in range(6):
            content = zip_of("more", content)
        (tmp_path / "notes").write_bytes(content)
        assert pickle_in(tmp_path / "notes") is not None


class TestOthers:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "A model.",
            "N. B.: only for research.",
            "Notes.\nTrained on 21,744 scans.",
            "cnn\nlstm\n\nA network. (tR",
            "(in this folder\nweights\n) and more.",
            "I love it.\n",
            "0. First\n1. Second\n",
            "}{ ]( ) t. s. a. b.",
            json.dumps({"a": [1, 2.5, None], "b": "c"}),
            "# Größe\n\n`pickle.load` is not used.",
        ],
    )
    def test_text_and_json_are_no_pickles(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "README.md").write_text(text, encoding="utf-8")
        assert pickle_in(tmp_path / "README.md") is None

    def test_noise_is_none(self) -> None:
        draw = random.Random(0)
        for size in range(1, 600):
            assert not is_pickle(io.BytesIO(b"\x00" + draw.randbytes(size)))

    @pytest.mark.parametrize("start", [b"PK", b"S'", b"V", b"cos"])
    def test_bytes_that_pickletools_warns_of_are_none(self, start: bytes) -> None:
        assert not is_pickle(io.BytesIO(start + b"\\\xdb'\n\x00 and more"))

    def test_an_array_of_numbers_under_another_name(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.arange(5))
        (tmp_path / "numbers").write_bytes(buffer.getvalue())
        assert pickle_in(tmp_path / "numbers") is None

    def test_weights_whose_last_bytes_look_like_the_end_of_a_zip(self, tmp_path: Path) -> None:
        end = b"PK\x05\x06" + b"\x00" * 18
        weights = torch.frombuffer(bytearray(b"\x11" * 100 + end), dtype=torch.uint8)
        save_file({"a": weights}, tmp_path / "model.safetensors")
        assert load_file(tmp_path / "model.safetensors")["a"].equal(weights)
        assert pickle_in(tmp_path / "model.safetensors") is None
