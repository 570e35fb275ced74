"""Models that were compiled: their weights have the same names as those of others, wherever they lie."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fabricated import make_classifier, make_sample, make_scan
from safetensors.torch import load_file, save_file

from ich_lstm import ScanClassifier
from ich_lstm.data.loading.batch import pack_scans
from ich_lstm.inference.checkpoint import SavedModel, read_model, write_model
from ich_lstm.inference.explain import explain
from ich_lstm.training.optimizer import Optimizer, make_optimizer

BATCH = pack_scans([make_sample(4), make_sample(7)])


def whole(classifier: ScanClassifier) -> ScanClassifier:
    return torch.compile(classifier, backend="eager")


def network(classifier: ScanClassifier) -> ScanClassifier:
    classifier.model = torch.compile(classifier.model, backend="eager")
    return classifier


def encoder(classifier: ScanClassifier) -> ScanClassifier:
    classifier.model.encoder = torch.compile(classifier.model.encoder, backend="eager")
    return classifier


def backbone(classifier: ScanClassifier) -> ScanClassifier:
    classifier.model.encoder.network = torch.compile(classifier.model.encoder.network, backend="eager")
    return classifier


def head(classifier: ScanClassifier) -> ScanClassifier:
    classifier.model.sequence = torch.compile(classifier.model.sequence, backend="eager")
    return classifier


def in_place(classifier: ScanClassifier) -> ScanClassifier:
    classifier.model.encoder.compile(backend="eager")
    return classifier


def all_parts(classifier: ScanClassifier) -> ScanClassifier:
    return network(encoder(backbone(classifier)))


WAYS = [whole, network, encoder, backbone, head, in_place, all_parts]
Way = Callable[[ScanClassifier], ScanClassifier]


@pytest.mark.parametrize("way", WAYS)
class TestNames:
    def test_saved_and_loaded_as_if_it_were_not_compiled(self, way: Way, tmp_path: Path) -> None:
        expected = make_classifier()
        compiled = way(make_classifier())
        assert compiled.weights_hash() == expected.weights_hash()
        compiled.save_pretrained(tmp_path)
        assert set(load_file(tmp_path / "model.safetensors")) == set(expected.model.state_dict())
        assert ScanClassifier.load(tmp_path).weights_hash() == expected.weights_hash()

    def test_a_state_goes_from_either_kind_into_either(self, way: Way) -> None:
        compiled, plain = way(make_classifier()), make_classifier(seed=1)
        if way is not whole:  # torch's wrapper has a state dict of its own
            assert set(compiled.state_dict()) == set(plain.state_dict())
            compiled.load_state_dict(plain.state_dict())
            assert compiled.weights_hash() == plain.weights_hash()
        compiled.load_weights_from(make_classifier(seed=2))
        assert compiled.weights_hash() == make_classifier(seed=2).weights_hash()
        plain.load_weights_from(compiled)
        assert plain.weights_hash() == compiled.weights_hash()

    def test_the_encoder_keeps_its_own_rate(self, way: Way) -> None:
        settings = Optimizer(lr=1.0, encoder_lr=0.5, window_lr=0.1, weight_decay=0.0)
        sizes = [
            {group["lr"]: sum(p.numel() for p in group["params"]) for group in make_optimizer(model, settings).param_groups}
            for model in (way(make_classifier()).model, make_classifier().model)
        ]
        assert sizes[0] == sizes[1]
        assert set(sizes[0]) == {1.0, 0.5}


@pytest.mark.parametrize("way", [network, *(pytest.param(way, marks=pytest.mark.slow) for way in (encoder, backbone))])
def test_a_compiled_model_predicts_and_explains_as_before(way: Way, project_key) -> None:
    compiled, plain = way(make_classifier()).eval(), make_classifier().eval()
    scan = make_scan()
    with torch.inference_mode():
        torch.testing.assert_close(compiled(BATCH).slice_logits, plain(BATCH).slice_logits)
    ours, theirs = (explain(model, scan, labels=["any"]) for model in (compiled, plain))
    torch.testing.assert_close(torch.tensor(ours.maps), torch.tensor(theirs.maps), equal_nan=True)


# Dynamo looks at the gradient of each tensor that enters a graph, also of those that have none.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize(
    ("way", "ema"), [(encoder, 0.9), *(pytest.param(way, None, marks=pytest.mark.slow) for way in (network, whole))]
)
def test_a_fit_of_a_compiled_model_leaves_checkpoints_like_any_other(way: Way, ema: float | None, fit, tmp_path: Path) -> None:
    done = fit(tmp_path, ema=ema, way=way, trainer={"max_epochs": 1})
    for file in ("best.ckpt", "last.ckpt"):
        content = torch.load(tmp_path / "checkpoints" / file, weights_only=True)
        states = [content["state_dict"], *([content["current_model_state"]] if ema else [])]
        assert all(set(state) == set(make_classifier().state_dict()) for state in states)
        assert ScanClassifier.load(tmp_path / "checkpoints" / file).weights_hash() == done.classifier.weights_hash()
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit(tmp_path, ema=ema, resume=True, trainer={"max_epochs": 2})  # one that is not compiled goes on


def test_files_with_torch_s_names_can_be_read(tmp_path: Path) -> None:
    """As versions before this one wrote them, and as anybody's own torch.save does."""
    plain = make_classifier()
    prefixed = {
        f"encoder._orig_mod.{name[8:]}" if name.startswith("encoder.") else name: t
        for name, t in plain.model.state_dict().items()
    }
    about = read_model_about(plain, tmp_path)
    write_model(tmp_path / "folder", SavedModel(about, prefixed))
    assert any("_orig_mod" in name for name in load_file(tmp_path / "folder" / "model.safetensors"))
    state = {f"_orig_mod.model.{name}": tensor for name, tensor in plain.model.state_dict().items()}
    torch.save({"ich_lstm": about, "state_dict": state}, tmp_path / "own.ckpt")
    for path in (tmp_path / "folder", tmp_path / "own.ckpt"):
        assert ScanClassifier.load(path).weights_hash() == plain.weights_hash()
    changed = load_file(tmp_path / "folder" / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in changed.items()}, tmp_path / "folder" / "model.safetensors")
    with pytest.raises(Exception, match="weights_damaged"):
        ScanClassifier.load(tmp_path / "folder")


def read_model_about(classifier: ScanClassifier, folder: Path) -> dict:
    classifier.save_pretrained(folder / "about")
    return read_model(folder / "about").about
