"""Saving and loading models."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from fabricated import TINY, make_classifier, make_sample
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from safetensors.torch import load_file, save_file

from ich_lstm import LABELS, ScanClassifier
from ich_lstm.data.loading.batch import pack_scans
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.inference.checkpoint import read_model, write_model
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.settings import merged, to_stored

STORED = to_stored(TINY)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder made by save_pretrained."""
    make_classifier().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def refusal(path: Path) -> CheckpointError:
    """Load what must be refused, and return the error."""
    with pytest.raises(CheckpointError) as caught:
        ScanClassifier.load(path)
    assert caught.value.where
    return caught.value


def logits_of(classifier: ScanClassifier) -> list[np.ndarray]:
    with torch.inference_mode():
        logits = classifier.eval()(pack_scans([make_sample(4), make_sample(7)]))
    return [values.numpy() for values in logits if values is not None]


class TestFolder:
    def test_comes_back_bit_for_bit(self, tmp_path: Path) -> None:
        for i, changes in enumerate(
            (
                {},
                {"head": {"class_path": "NoHead"}, "pooling": {"kind": "max"}},
                {"windows": {"channels": [(50, 100)]}, "optimizer": {"lr": 0.5}},
            )
        ):
            classifier = make_classifier(**changes)
            classifier.name = "my model"
            classifier.save_pretrained(tmp_path / str(i))
            back = ScanClassifier.load(tmp_path / str(i))
            assert not back.training
            assert back.settings == classifier.settings
            assert (back.name, back.preprocessing) == ("my model", Preprocessing(size=32))
            assert back.weights_hash() == classifier.weights_hash()
            for got, expected in zip(logits_of(back), logits_of(classifier), strict=True):
                np.testing.assert_array_equal(got, expected)

    def test_by_any_of_its_names(self, saved: Path) -> None:
        names = [saved, saved.parent, saved / "model.safetensors", saved / "model.json"]
        assert len({ScanClassifier.load(name).weights_hash() for name in names}) == 1
        assert len({ScanClassifier.load(str(name)).weights_hash() for name in names}) == 1

    def test_holds_no_path_and_is_described(self, saved: Path) -> None:
        for file in saved.iterdir():
            assert saved.parent.name.encode() not in file.read_bytes()
        about = json.loads((saved / "model.json").read_text())
        assert about["labels"] == list(LABELS)
        assert about["hash"] == make_classifier().weights_hash()

    def test_a_model_without_preprocessing_may_be_saved(self, tmp_path: Path) -> None:
        classifier = make_classifier()
        classifier.preprocessing = None
        classifier.save_pretrained(tmp_path)
        assert ScanClassifier.load(tmp_path).preprocessing is None

    def test_hash_follows_the_weights(self, saved: Path) -> None:
        classifier = ScanClassifier.load(saved)
        before = classifier.weights_hash()
        assert classifier.weights_hash() == before
        with torch.no_grad():
            classifier.model.encoder_classifier.bias[0] += 1
        assert classifier.weights_hash() != before
        classifier.model.load_state_dict(load_file(saved / "model.safetensors"))
        assert classifier.weights_hash() == before

    def test_may_be_loaded_where_no_gradients_are_kept(self, saved: Path) -> None:
        with torch.inference_mode():
            assert ScanClassifier.load(saved).weights_hash() == make_classifier().weights_hash()


class TestRefused:
    def test_missing(self, tmp_path: Path) -> None:
        assert refusal(tmp_path / "none").code == "missing_checkpoint"

    def test_empty_folder(self, tmp_path: Path) -> None:
        assert refusal(tmp_path).code == "not_a_model"

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\x80\x02.", b"PK\x03\x04", b"(((((", b"0", b"\x80\x04\x95" + b"\xff" * 20]
    )
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "model.ckpt").write_bytes(content)
        assert refusal(tmp_path / "model.ckpt").code == "not_a_model"

    def test_noise(self, tmp_path: Path) -> None:
        draw = random.Random(0)
        for _ in range(300):
            head = draw.choice([b"", b"\x80\x02", b"\x80\x04\x95"])
            (tmp_path / "model.ckpt").write_bytes(head + draw.randbytes(draw.randrange(1, 60)))
            assert refusal(tmp_path / "model.ckpt").code == "not_a_model"

    def test_a_pickle_is_not_executed(self, tmp_path: Path) -> None:
        class Attack:
            def __reduce__(self) -> tuple:
                return Path.touch, (tmp_path / "executed",)

        (tmp_path / "a.ckpt").write_bytes(pickle.dumps(Attack()))
        torch.save({"ich_lstm": Attack(), "state_dict": {}}, tmp_path / "b.ckpt")
        for name in ("a.ckpt", "b.ckpt"):
            assert refusal(tmp_path / name).code == "not_a_model"
        assert not (tmp_path / "executed").exists()

    @pytest.mark.parametrize(
        "content",
        [
            {"state_dict": {}},
            {"ich_lstm": {}, "state_dict": {}},
            {"ich_lstm": 3, "state_dict": {}},
            {"ich_lstm": {"settings": STORED, "preprocessing": None}, "state_dict": [1]},
            {"ich_lstm": {"settings": STORED, "preprocessing": None}, "state_dict": {"model.a": 1}},
            torch.zeros(3),
            [1, 2],
        ],
        ids=["no model", "nothing", "number", "list of weights", "numbers", "tensor", "list"],
    )
    def test_checkpoints_of_others(self, tmp_path: Path, content: object) -> None:
        torch.save(content, tmp_path / "other.ckpt")
        refusal(tmp_path / "other.ckpt")

    def test_weights_of_another_network(self, saved: Path, tmp_path: Path) -> None:
        make_classifier(head={"hidden_size": 16}).save_pretrained(tmp_path / "other")
        (tmp_path / "other" / "model.safetensors").rename(saved / "model.safetensors")
        refusal(saved)

    def test_weights_that_were_tampered_with(self, saved: Path) -> None:
        whole = (saved / "model.safetensors").read_bytes()
        changed = bytearray(whole)
        changed[-1] ^= 1
        for content in (whole[:-100], whole[:5], b"", b"\xff" * 8 + whole[8:], whole[:50] + b"}" + whole[51:], bytes(changed)):
            (saved / "model.safetensors").write_bytes(content)
            refusal(saved)

    def test_weights_that_are_missing(self, saved: Path) -> None:
        weights = load_file(saved / "model.safetensors")
        weights.pop("gate")
        save_file(weights, saved / "model.safetensors")
        refusal(saved)
        (saved / "model.safetensors").unlink()
        refusal(saved)

    @pytest.mark.parametrize(
        "changes",
        [
            {"settings": None},
            {"settings": {}},
            {"settings": STORED | {"encoder": {"backbone": "no such", "pretrained": False}}},
            {"settings": STORED | {"encoder": {"backbone": 5}}},
            {"settings": STORED | {"head": {"class_path": "RNN"}}},
            {"settings": STORED | {"unheard": 1}},
            {"settings": STORED | {"head": {"class_path": "LSTM", "init_args": {"hidden_size": "8"}}}},
            {"settings": STORED | {"windows": 3}},
            {"settings": {"backbone": "test_resnet", "pretrained": False, "hidden_size": "8", "sequence": "lstm"}},
            {"preprocessing": {"size": 3}},
            {"preprocessing": {"side": 32}},
            {"preprocessing": 7},
            {"format": 99},
            {"format": "x"},
            {"labels": list(reversed(LABELS))},
        ],
        ids=str,
    )
    def test_descriptions_that_do_not_fit(self, saved: Path, changes: dict) -> None:
        about = json.loads((saved / "model.json").read_text())
        del about["checksum"]  # it would be refused for that alone
        (saved / "model.json").write_text(json.dumps(about | changes))
        refusal(saved)

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
    def test_descriptions_that_are_none(self, saved: Path, text: str) -> None:
        (saved / "model.json").write_bytes(text.encode("latin-1"))
        refusal(saved)


def test_written_and_read_models_are_the_same(saved: Path, tmp_path: Path) -> None:
    first = read_model(saved)
    write_model(tmp_path / "again", first)
    again = read_model(tmp_path / "again")
    assert again.about == first.about
    assert again.hash == first.hash


class TestPathlessCheckpoint:
    """Fits are those of `trained` in the folder's conftest: four epochs, stopped after two in one case and resumed."""

    def test_no_path_in_any_file(self, trained, tmp_path_factory: pytest.TempPathFactory) -> None:
        files = list((trained.folder / "checkpoints").iterdir())
        assert sorted(file.name for file in files) == ["before-last.ckpt", "best.ckpt", "last.ckpt"]
        for file in files:
            content = file.read_bytes()
            for part in (trained.folder.name, str(trained.folder.parent), tmp_path_factory.getbasetemp().name, str(Path.home())):
                assert part.encode() not in content

    def test_all_forms_hold_the_same_model(self, trained, tmp_path: Path) -> None:
        last = ScanClassifier.load(trained.folder / "checkpoints" / "last.ckpt")
        assert last.weights_hash() == trained.classifier.weights_hash()
        assert last.preprocessing == Preprocessing(size=32)
        last.save_pretrained(tmp_path / "run" / "model")
        for form in (last, ScanClassifier.load(tmp_path / "run"), ScanClassifier.load(tmp_path / "run" / "model")):
            for got, expected in zip(logits_of(form), logits_of(trained.classifier), strict=True):
                np.testing.assert_array_equal(got, expected)

    def test_best_is_the_lowest_of_what_was_logged(self, trained) -> None:
        assert float(trained.checkpoint.best_model_score) == pytest.approx(min(trained.monitored))
        assert trained.checkpoint.best_model_path == str(trained.folder / "checkpoints" / "best.ckpt")

    def test_a_resume_is_as_if_there_had_been_no_stop(self, trained, resumed) -> None:
        assert resumed.classifier.weights_hash() == trained.classifier.weights_hash()
        assert resumed.monitored == trained.monitored
        ours, theirs = resumed.checkpoint, trained.checkpoint
        assert ours.best_model_score == theirs.best_model_score
        assert ours.best_model_path == str(resumed.folder / "checkpoints" / "best.ckpt")
        assert ours.last_model_path == str(resumed.folder / "checkpoints" / "last.ckpt")
        assert list(ours.best_k_models) == [ours.best_model_path]
        # No second best beside the first.
        assert sorted(file.name for file in (resumed.folder / "checkpoints").iterdir()) == [
            "before-last.ckpt",
            "best.ckpt",
            "last.ckpt",
        ]
        best = [ScanClassifier.load(run.folder / "checkpoints" / "best.ckpt").weights_hash() for run in (resumed, trained)]
        assert best[0] == best[1]

    def test_lightning_s_own_writes_no_paths_either(self, trained, tmp_path: Path) -> None:
        """A notebook's Trainer makes a plain ModelCheckpoint."""
        trainer = Trainer(
            max_steps=1,
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            limit_val_batches=0,
            callbacks=[ModelCheckpoint(dirpath=tmp_path / "own", save_last=True)],
        )
        trainer.fit(make_classifier(), trained.data())
        content = torch.load(tmp_path / "own" / "last.ckpt", weights_only=True)
        assert any("ModelCheckpoint" in name for name in content["callbacks"])
        assert tmp_path.name.encode() not in (tmp_path / "own" / "last.ckpt").read_bytes()


class TestLoadFromCheckpoint:
    @pytest.fixture
    def unusual(self, tmp_path: Path, trained) -> dict[str, Path]:
        """A model whose every part differs from the defaults, in all forms in which it may lie."""
        classifier = make_classifier(
            windows={"channels": [(50, 100)], "mean": [0.2], "std": [0.3]},
            head={"class_path": "GRU", "init_args": {"positions": "none"}},
            pooling={"kind": "max"},
        )
        classifier.save_pretrained(tmp_path / "run" / "model")
        trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
        trainer.strategy.connect(classifier)
        trainer.save_checkpoint(tmp_path / "own.ckpt")
        return {"ckpt": tmp_path / "own.ckpt", "folder": tmp_path / "run" / "model", "run": tmp_path / "run"}

    @pytest.mark.parametrize("form", ["ckpt", "folder", "run"])
    @pytest.mark.parametrize("kind", [Path, str])
    def test_is_load_under_lightning_s_name(self, unusual: dict[str, Path], form: str, kind: type) -> None:
        ours, theirs = ScanClassifier.load(unusual[form]), ScanClassifier.load_from_checkpoint(kind(unusual[form]))
        assert theirs.settings == ours.settings
        assert (theirs.preprocessing, theirs.name, theirs.training) == (ours.preprocessing, ours.name, False)
        assert theirs.weights_hash() == ours.weights_hash()
        for got, expected in zip(logits_of(theirs), logits_of(ours), strict=True):
            np.testing.assert_array_equal(got, expected)

    def test_of_a_fit_it_downloads_nothing_and_knows_its_data(self, trained, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("a download"))
        path = trained.folder / "checkpoints" / "last.ckpt"
        back = ScanClassifier.load_from_checkpoint(path, map_location="cpu", strict=True, weights_only=True)
        assert back.weights_hash() == trained.classifier.weights_hash()
        assert back.training_data == trained.classifier.training_data

    def test_changes_that_leave_the_weights_their_meaning(self, unusual: dict[str, Path]) -> None:
        changes = {
            "optimizer": {"lr": 0.7},
            "test_time": "flip",
            "encoder": {"slices_per_chunk": 3},
            "head": {"output_dropout": 0.4, "reversal": 0.1},
            "ema": 0.5,
        }
        back = ScanClassifier.load_from_checkpoint(unusual["ckpt"], changes=changes)
        assert back.settings == merged(ScanClassifier.load(unusual["ckpt"]).settings, changes)
        assert back.model.settings.encoder.slices_per_chunk == 3
        assert back.weights_hash() == ScanClassifier.load(unusual["ckpt"]).weights_hash()

    def test_changes_to_the_stored_value_are_welcome(self, unusual: dict[str, Path]) -> None:
        same = {
            "encoder": {"backbone": "test_resnet", "pretrained": False},
            "windows": {"channels": ((50, 100),), "std": (0.3,)},
            "head": {"class_path": "GRU"},
        }
        back = ScanClassifier.load_from_checkpoint(unusual["ckpt"], changes=same)
        assert back.settings == ScanClassifier.load(unusual["ckpt"]).settings

    @pytest.mark.parametrize(
        "changes",
        [
            {"encoder": {"backbone": "resnet18"}},
            {"windows": {"channels": [(40, 80)]}},
            {"windows": {"mean": [0.5]}},
            {"head": {"class_path": "LSTM"}},
            {"head": {"positions": "mm"}},
            {"pooling": {"kind": "mean"}},
            {"head": {"hidden_size": 16}},
            {"windows": {"quantize": True}},
            {"encoder": {"pretrained": True}},
            {"encoder": {"pretrained_file": "weights.pth"}},
        ],
        ids=str,
    )
    def test_changes_that_would_make_another_model_are_refused(self, unusual: dict[str, Path], changes: dict) -> None:
        with pytest.raises(ConfigError) as caught:
            ScanClassifier.load_from_checkpoint(unusual["ckpt"], changes=changes)
        assert next(iter(changes)) in caught.value.where

    @pytest.mark.parametrize(
        "arguments",
        [{"hparams_file": "hparams.yaml"}, {"strict": False}, {"weights_only": False}, {"map_location": {"cuda:0": "cpu"}}],
        ids=str,
    )
    def test_what_it_does_not_do_is_refused(self, unusual: dict[str, Path], arguments: dict) -> None:
        with pytest.raises(ConfigError) as caught:
            ScanClassifier.load_from_checkpoint(unusual["ckpt"], **arguments)
        assert next(iter(arguments)) in caught.value.where

    def test_the_near_name_is_told(self, unusual: dict[str, Path]) -> None:
        with pytest.raises(ConfigError, match="Did you mean optimizer"):
            ScanClassifier.load_from_checkpoint(unusual["ckpt"], changes={"optimiser": {"lr": 0.1}})

    def test_what_load_refuses_it_refuses(self, tmp_path: Path) -> None:
        (tmp_path / "a.ckpt").write_bytes(b"hello")
        for path in (tmp_path / "a.ckpt", tmp_path / "none.ckpt", "https://example.org/model.ckpt"):
            with pytest.raises(CheckpointError):
                ScanClassifier.load_from_checkpoint(path)
        with (tmp_path / "a.ckpt").open("rb") as file, pytest.raises(ConfigError):
            ScanClassifier.load_from_checkpoint(file)


class TestPretrained:
    def test_gives_the_same_logits_bit_for_bit(self, tmp_path: Path) -> None:
        settings = {
            "windows": {"quantize": True},
            "encoder": {"adjacent_slices": 1},
            "pooling": {"encoder_residual": True, "instances": True},
            "reduction": {"kind": "linear", "features": 5},
        }
        classifier = make_classifier(**settings).eval()
        classifier.save_pretrained(tmp_path / "model")
        again = ScanClassifier.from_pretrained(tmp_path / "model")
        batch = pack_scans([make_sample(5), make_sample(3)])
        with torch.inference_mode():
            for first, second in zip(classifier(batch), again(batch), strict=True):
                assert torch.equal(first, second)
        assert again.settings == classifier.settings
        assert again.preprocessing == classifier.preprocessing

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("pytorch_model.bin", b"weights"),
            ("further/state.pkl", pickle.dumps({"a": 1})),
            ("notes.txt", pickle.dumps({"a": 1})),
            ("README.md", b"PK\x03\x04 a zip, as torch writes it"),
        ],
    )
    def test_a_folder_with_a_pickle_is_refused(self, name: str, content: bytes, tmp_path: Path) -> None:
        make_classifier().save_pretrained(tmp_path)
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.from_pretrained(tmp_path)
        assert caught.value.code == "pickle_in_model"
        assert name in caught.value.got

    def test_text_and_calibration_beside_it_are_welcome(self, tmp_path: Path) -> None:
        make_classifier().save_pretrained(tmp_path)
        (tmp_path / "README.md").write_text("A model.")
        assert ScanClassifier.from_pretrained(tmp_path).name == "test_resnet"

    @pytest.mark.parametrize("place", [-1, -100, 2000])
    def test_tampered_weights_are_refused(self, place: int, tmp_path: Path) -> None:
        make_classifier().save_pretrained(tmp_path)
        path = tmp_path / "model.safetensors"
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.from_pretrained(tmp_path)
        assert caught.value.code in ("weights_damaged", "not_a_model", "weights_do_not_fit")

    def test_a_name_of_the_hub_is_looked_up_there_and_brings_safe_files_only(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make_classifier().save_pretrained(tmp_path / "snapshot")
        asked = {}

        def download(name: str, **options: Any) -> str:
            asked.update(options, name=name)
            return str(tmp_path / "snapshot")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        assert ScanClassifier.from_pretrained("someone/a-model").name == "test_resnet"
        assert asked["name"] == "someone/a-model"
        assert not any(Path("pytorch_model.bin").match(pattern) for pattern in asked["allow_patterns"])

    def test_without_a_connection_it_says_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(name: str, **options: Any) -> str:
            raise OSError("no connection")

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
        for name in ("someone/a-model", "no folder of this name"):
            with pytest.raises(CheckpointError) as caught:
                ScanClassifier.from_pretrained(name)
            assert caught.value.code == "missing_checkpoint"
