"""Model files by which a stranger could run code, open files, connect, or exhaust memory or time."""

import gzip
import io
import json
import os
import pickle
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import TINY, make_classifier
from hostile import LOADED, MEGABYTES, SECONDS, TRIALS, Outcome, outcomes
from safetensors.torch import load_file, save_file

from ich_lstm.inference.checkpoint import SavedModel
from ich_lstm.inference.stored.about import checksum
from ich_lstm.labels import LABELS
from ich_lstm.settings import to_stored

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="each case is loaded in a fork")

Case = tuple[str, str, Callable[[Path], Path | None]]
"""Name, expected code, and a function that changes a model's folder; it returns another path to load, or None."""

STORED = to_stored(TINY)
HEAD = STORED["head"]["init_args"]


def about_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "model.json").read_text())


def edit(**changes: Any) -> Callable[[Path], None]:
    """Change entries of model.json, with a checksum that is right."""

    def make(folder: Path) -> None:
        about = about_of(folder) | changes
        (folder / "model.json").write_text(json.dumps(about | {"checksum": checksum(about)}))

    return make


def settings(**changes: Any) -> Callable[[Path], None]:
    return edit(settings=STORED | changes)


def head(**changes: Any) -> Callable[[Path], None]:
    return settings(head={"class_path": "LSTM", "init_args": HEAD | changes})


def encoder(**changes: Any) -> Callable[[Path], None]:
    return settings(encoder=STORED["encoder"] | changes)


def raw(content: bytes, name: str = "model.json") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def inserted(text: str) -> Callable[[Path], None]:
    """Put text behind the first brace of model.json."""
    return lambda folder: raw(b"{" + text.encode() + (folder / "model.json").read_bytes()[1:])(folder)


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """Change the tensors, with a hash that is right."""

    def make(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        edit(hash=SavedModel({}, tensors).hash)(folder)

    return make


def replaced(name: str, by: Callable[[Path], Any]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        by(folder / name)

    return make


def sparse(size: int, start: bytes = b"") -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return make


def checkpoint(change: Callable[[dict[str, Any]], Any] = lambda _: None, rewrite: Any = None) -> Callable[[Path], Path]:
    """A .ckpt of the same model, whose content and then whose bytes are changed."""

    def make(folder: Path) -> Path:
        state = {f"model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        content = {"ich_lstm": about_of(folder), "state_dict": state}
        content["ich_lstm"].pop("checksum")
        changed = change(content)
        path = folder / "last.ckpt"
        torch.save(content if changed is None else changed, path)
        if rewrite is not None:
            path.write_bytes(rewrite(path.read_bytes()))
        return path

    return make


class Attack:
    def __reduce__(self) -> tuple:
        return os.system, ("true",)


def tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("storages", "tensors", "pickle"):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(changes: dict[str, Any], compression: int = zipfile.ZIP_STORED) -> Callable[[bytes], bytes]:
    """Write a zip again, with other members."""

    def rewrite(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
            for name in old.namelist():
                member = old.read(name)
                ending = name.rpartition("/")[2]
                new.writestr(name, changes[ending](member) if ending in changes else member)
        return buffer.getvalue()

    return rewrite


def bomb(compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("data", b"\0" * (80 * 2**20))
    return buffer.getvalue()


def chain(length: int) -> dict[str, Any]:
    start: dict[str, Any] = {"encoder": {"source": "random"}}
    for _ in range(length):
        start = {"model": "a", "hash": "b", "starting_weights": start, "fits": []}
    return start


def shared(depth: int) -> list[Any]:
    """A list that stands for 2 to the power of ``depth`` values."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def calibration(text: str) -> Callable[[Path], None]:
    return raw(text.encode(), "calibration.json")


def set_about(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["ich_lstm"].__setitem__(name, value)


def set_tensor(tensor: Any, name: str = "model.gate") -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state_dict"].__setitem__(name, tensor)


def metadata_cases() -> Iterator[Case]:
    broken = {
        "empty": b"",
        "a brace": b"{",
        "not UTF-8": b'{"name": "\xff"}',
        "lists 100,000 deep": b"[" * 100_000,
        "mappings 3,000 deep": b'{"a":' * 3000 + b"1" + b"}" * 3000,
        "an integer of 100,000 digits": b'{"format": ' + b"9" * 100_000 + b"}",
        "17 MiB": b'{"name": "' + b"a" * (17 * 2**20) + b'"}',
        "eight million lists": b"[" + b"1," * (8 * 2**20 - 2) + b"1]",
    }
    for name, content in broken.items():
        yield f"JSON: {name}", "not_a_model", raw(content)
    for text in ('"name": "a",', '"slice_mm": NaN, "x": [', '"x": Infinity,', '"x": 1e999,', '"x": 36893488147419103232,'):
        yield f"JSON: {text}", "not_a_model", inserted(text)
    for content in (b"[]", b"null", b"3", b'"text"'):
        yield f"JSON: {content.decode()}", "bad_metadata", raw(content)
    wrong: dict[str, list[Any]] = {
        "slice_mm": ["5", -1, True, 1e9],
        "is_synthetic": [1, "yes"],
        "positive_share": [1.5, -0.1, "half"],
        "name": ["a" * 201, "a\x1b[2J", "a\nb", 5],
        "hash": [5, "z" * 12],
        "of_training": [5, [1]],
        "fits": [5, [5], [{"settings": 3}]],
        "training_data": [3, {"patients": -1}, {"names": ["A"]}, {"positive_slices": {"any": "x"}}, {"known_slice_labels": 2}],
        "starting_weights": [3, {"encoder": 3}, {"model": 3}, {"released": 5}],
        "format": ["x", 0],
        "preprocessing": [7, []],
        "settings": [None, 3],
    }
    for name, values in wrong.items():
        for value in values:
            yield f"{name} = {str(value)[:30]!r}", "bad_metadata", edit(**{name: value})
    yield (
        "starting weights 1,000 deep",
        "not_a_model",
        lambda folder: raw(b'{"starting_weights": ' + b'{"model": "a", "starting_weights": ' * 1000 + b"null" + b"}" * 1001)(
            folder
        ),
    )
    yield "starting weights 60 deep", "not_a_model", edit(starting_weights=chain(60))
    yield "a newer format", "newer_format", edit(format=99)
    yield "other labels", "other_labels", edit(labels=list(reversed(LABELS)))
    yield (
        "a changed setting",
        "metadata_damaged",
        lambda folder: raw((folder / "model.json").read_bytes().replace(b'"crop": "head"', b'"crop": "none"'))(folder),
    )
    yield (
        "a checksum of the wrong type",
        "metadata_damaged",
        lambda folder: raw(json.dumps(about_of(folder) | {"checksum": [1]}).encode())(folder),
    )


def settings_cases() -> Iterator[Case]:
    huge = {
        "10 million layers": head(num_layers=10**7),
        "2**62 layers": head(num_layers=2**62),
        "a billion hidden units": head(hidden_size=10**9),
        "2**60 hidden units": head(hidden_size=2**60),
        "a projection to 2**40": head(projection=2**40),
        "attention of 2**40": settings(pooling=STORED["pooling"] | {"attention_size": 2**40}),
        "a million neighbours": encoder(adjacent_slices=10**6),
        "2**60 neighbours": encoder(adjacent_slices=2**60),
        "100,000 windows": settings(windows=STORED["windows"] | {"channels": [[40, 80]] * 100_000}),
        "another backbone": encoder(backbone="vit_giant_patch14_dinov2"),
        "a backbone of the hub": encoder(backbone="hf-hub:someone/model"),
        "a backbone of a folder": encoder(backbone="local-dir:/etc"),
        "code as a head": settings(head={"class_path": "os.system", "init_args": {}}),
        "settings of a head that are a list": settings(head={"class_path": "LSTM", "init_args": [1]}),
        "an unknown setting": settings(**{"x\x1b[2J": 1}),
        "a size as text": head(hidden_size="8"),
        "windows without width": settings(windows=STORED["windows"] | {"channels": [[40, 0]]}),
        "a picture of 2**40 pixels": edit(preprocessing={"size": 2**20, "crop": "head", "clip": None}),
        "a picture of -1 pixel": edit(preprocessing={"size": -1}),
        "a clip of text": edit(preprocessing={"size": 32, "clip": ["a", "b"]}),
        "an empty fit": edit(fits=[{"settings": {}}]),
    }
    for name, make in huge.items():
        yield name, "weights_do_not_fit", make
    ways = {"compiled": True, "pretrained": True, "pretrained_file": "../fifo", "checkpoint_blocks": 7, "slices_per_chunk": -1}

    def with_fifo(change: Callable[[Path], None]) -> Callable[[Path], None]:
        return lambda folder: (os.mkfifo(folder.parent / "fifo"), change(folder))[1]

    for name, value in ways.items():
        make = encoder(**{name: value})
        yield f"how to run: {name}", LOADED, with_fifo(make) if name == "pretrained_file" else make


def weights_cases() -> Iterator[Case]:
    yield "NaN in the weights", "weights_not_finite", weights(lambda tensors: tensors["gate"].fill_(torch.nan))
    yield "infinity in the weights", "weights_not_finite", weights(lambda tensors: tensors["gate"].fill_(torch.inf))
    yield "a tensor missing", "weights_do_not_fit", weights(lambda tensors: tensors.pop("gate"))
    yield "a tensor more", "weights_do_not_fit", weights(lambda tensors: tensors.update(x=torch.ones(1)))
    yield "another shape", "weights_do_not_fit", weights(lambda tensors: tensors.update(gate=torch.ones(7)))
    yield "another type", "weights_do_not_fit", weights(lambda tensors: tensors.update(gate=torch.ones(6).long()))
    yield (
        "a flipped byte",
        "weights_damaged",
        lambda folder: raw(
            (content := (folder / "model.safetensors").read_bytes())[:-1] + bytes([content[-1] ^ 1]), "model.safetensors"
        )(folder),
    )
    contents = {
        "empty": b"",
        "a header of 2**62 bytes": (2**62).to_bytes(8, "little") + b"{}",
        "a header of 5 MiB": (5 * 2**20).to_bytes(8, "little") + b"{" + b" " * (5 * 2**20),
        "a deep header": (90_000).to_bytes(8, "little") + b'{"a":' * 18_000,
        "a tensor beyond its end": (62).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}     ',
    }
    for name, content in contents.items():
        yield f"weights: {name}", "not_a_model", raw(content, "model.safetensors")
    yield "weights of 20 GiB", "not_a_model", replaced("model.safetensors", sparse(20 * 2**30, (2).to_bytes(8, "little") + b"{}"))


def folder_cases() -> Iterator[Case]:
    for name in ("model.json", "model.safetensors", "notes.txt"):
        expected = "not_a_model" if name == "model.json" else "not_a_file_in_model"
        yield f"a pipe: {name}", expected, replaced(name, os.mkfifo)
        yield f"a link elsewhere: {name}", "link_in_model", replaced(name, lambda path: path.symlink_to("../outside"))
    yield "a link to a device", "link_in_model", replaced("model.safetensors", lambda path: path.symlink_to("/dev/zero"))
    yield "a folder as weights", "not_a_model", replaced("model.safetensors", lambda path: path.mkdir())
    yield "a text of a terabyte", "large_file_in_model", replaced("README.md", sparse(2**40))
    for name, content in {
        "a pickle": pickle.dumps(Attack()),
        "ten million opcodes": b"N" * 10**7,
        "a zip of 80 MB of zeros": bomb(),
        "a gzip of 80 MB of zeros": gzip.compress(b"\0" * (80 * 2**20), 1),
    }.items():
        yield f"beside it: {name}", "pickle_in_model", raw(content, "README.md")
    good = '{"format": 1, "labels": ["epidural"]}'
    for text in ("[" * 100_000, "[]", '{"format": 1}', good, '{"format": NaN}', '{"format": "x"}'):
        yield f"calibration: {text[:40]}", "bad_calibration", calibration(text)
    yield "calibration: a pipe", "not_a_file_in_model", lambda folder: os.mkfifo(folder / "calibration.json")


def checkpoint_cases() -> Iterator[Case]:
    yield "ckpt: as it is", LOADED, checkpoint()
    yield (
        "ckpt: 10 million layers",
        "weights_do_not_fit",
        checkpoint(set_about("settings", STORED | {"head": {"class_path": "LSTM", "init_args": HEAD | {"num_layers": 10**7}}})),
    )
    yield "ckpt: NaN as spacing", "bad_metadata", checkpoint(set_about("slice_mm", float("nan")))
    yield "ckpt: 2**40 values in 40 lists", "bad_metadata", checkpoint(set_about("fits", shared(40)))
    yield "ckpt: a list in itself", "bad_metadata", checkpoint(set_about("fits", endless()))
    yield "ckpt: a tensor in the metadata", "bad_metadata", checkpoint(set_about("name", torch.ones(2)))
    yield "ckpt: NaN in the weights", "weights_not_finite", checkpoint(set_tensor(torch.full((6,), torch.nan)))
    yield "ckpt: 2**40 elements of one", "not_a_model", checkpoint(set_tensor(torch.ones(1).expand(2**20, 2**20)))
    yield "ckpt: a sparse tensor", "not_a_model", checkpoint(set_tensor(torch.ones(6).to_sparse()))
    yield "ckpt: a number as a tensor", "not_a_model", checkpoint(set_tensor(3))
    yield "ckpt: a call", "not_a_model", checkpoint(set_about("name", Attack()))
    yield "ckpt: a bare pickle", "not_a_model", checkpoint(rewrite=lambda _: pickle.dumps(Attack()))
    yield "ckpt: a tar", "not_a_model", checkpoint(rewrite=tar)
    yield "ckpt: compressed", "not_a_model", checkpoint(rewrite=zipped({}, zipfile.ZIP_DEFLATED))
    yield (
        "ckpt: 9 MB of opcodes",
        "not_a_model",
        checkpoint(rewrite=zipped({"data.pkl": lambda _: b"]" * 9_000_000})),
    )
    yield (
        "ckpt: more elements than bytes",
        "not_a_model",
        checkpoint(rewrite=zipped({str(number): lambda _: b"" for number in range(999)})),
    )


def cases() -> list[Case]:
    return [*metadata_cases(), *settings_cases(), *weights_cases(), *folder_cases(), *checkpoint_cases()]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What happened to each of the files."""
    base = tmp_path_factory.mktemp("hostile")
    make_classifier().save_pretrained(base / "model")
    paths = {}
    for number, (name, _, make) in enumerate(cases()):
        folder = base / str(number) / "model"
        shutil.copytree(base / "model", folder)
        (folder.parent / "outside").write_text("{}")
        paths[name] = ("load_model", make(folder) or folder)
    return outcomes(paths)


def test_there_are_a_hundred() -> None:
    assert len({name for name, *_ in cases()}) == len(cases()) >= 100


@pytest.mark.parametrize(("name", "expected"), [(name, expected) for name, expected, _ in cases()])
def test_a_hostile_model_is_refused_for_its_own_reason(name: str, expected: str, found: dict[str, Outcome]) -> None:
    outcome = found[name]
    assert outcome.code == expected, outcome.message
    assert outcome.message.isprintable()
    assert outcome.seen == []
    assert outcome.seconds < SECONDS
    assert outcome.megabytes < MEGABYTES


@pytest.mark.slow
def test_the_harness_sees_and_measures(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "outside").write_text("x")
    trials = {each.__name__: (each.__name__, tmp_path / "model") for each in TRIALS}
    waits = {"wait": trials.pop("wait")}
    found = outcomes(trials) | outcomes(waits, seconds=2)
    seen = {
        "open_a_file": "opened",
        "write_a_file": "wrote",
        "run_a_program": "os.system",
        "connect": "socket.connect",
    }
    for kind, expected in seen.items():
        assert any(expected in each for each in found[kind].seen), kind
    assert found["wait"].code == "time"
    assert found["take_memory"].megabytes > MEGABYTES
