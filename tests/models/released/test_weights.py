"""Weights that others released.

No released file is at hand here. So the published networks are built once more, from torch's, torchvision's and timm's own
modules, with random weights; they are saved as their authors saved them, loaded, and must say what they said before.
"""

import ast
import inspect
import json
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torchvision
from fabricated import make_classifier
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ich_lstm import LABELS, ScanClassifier, read_scan
from ich_lstm.cli import predict
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.inference.checkpoint import read_model
from ich_lstm.models.reduction import Reduction
from ich_lstm.models.released import weights
from ich_lstm.models.released.weights import NGUYEN_PREPROCESSING, read_released
from ich_lstm.models.scan_model import ScanLogits, ScanModel
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.reading import index_source
from ich_lstm.window import BONE, BRAIN, SUBDURAL, Window

SHORT = {"any": "ICH", "intraparenchymal": "IPH", "intraventricular": "IVH", "subarachnoid": "SAH"}
SHORT |= {"subdural": "SDH", "epidural": "EDH"}


def stir(module: nn.Module, seed: int) -> None:
    """Random weights everywhere, running statistics included, so that no tensor may stand for another."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for layer in module.modules():
            if isinstance(layer, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm)):
                layer.weight.uniform_(0.7, 1.3)
                layer.bias.normal_(std=0.1)
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.7, 1.3)
                layer.num_batches_tracked.fill_(1000)
            if isinstance(layer, nn.RNNBase):
                for parameter in layer.parameters():
                    parameter.uniform_(-0.2, 0.2)


def hounsfield(slices: int, size: int, seed: int) -> np.ndarray:
    """Blocks of tissue and bone with noise, int16 ``(slices, size, size)``."""
    draw = np.random.default_rng(seed)
    blocks = draw.choice([-1024, -100, 0, 40, 70, 120, 900], (slices, size // 8, size // 8))
    return (
        (blocks.repeat(8, axis=1).repeat(8, axis=2) + draw.normal(0, 12, (slices, size, size))).clip(-1024, 3071).astype(np.int16)
    )


def refusal(path: Path) -> CheckpointError:
    """Load what must be refused, and return the error."""
    with pytest.raises(CheckpointError) as caught:
        ScanClassifier.load(path)
    return caught.value


def run(model: ScanModel, scans: list[np.ndarray]) -> ScanLogits:
    with torch.inference_mode():
        return model(torch.from_numpy(np.concatenate(scans)), torch.tensor([len(scan) for scan in scans]))


class NguyenNet(nn.Module):
    """Nguyen et al.'s network, under their names; output in their order."""

    ORDER = ("any", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "epidural")

    def __init__(self, encoder: str) -> None:
        super().__init__()
        if encoder == "resnet50":
            body = torchvision.models.resnet50(weights=None)
            stem = OrderedDict(conv1=body.conv1, bn1=body.bn1, relu=body.relu)
            self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            body = timm.create_model("legacy_seresnext50_32x4d", pretrained=False)
            stem = OrderedDict(conv1=body.layer0.conv1, bn1=body.layer0.bn1, relu1=nn.ReLU())
            self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.layer0 = nn.Sequential(stem)
        self.layer1, self.layer2, self.layer3, self.layer4 = body.layer1, body.layer2, body.layer3, body.layer4
        self.decoder = nn.ModuleDict({"recurrent": nn.LSTM(2048, 512, 2, bidirectional=True), "fc": nn.Linear(1024, 6)})
        stir(self, seed=len(encoder))
        nn.init.normal_(self.decoder["fc"].weight, std=0.3)
        nn.init.normal_(self.decoder["fc"].bias, std=1.0)
        self.eval()

    @torch.inference_mode()
    def slice_logits(self, hu: np.ndarray, order: str = "bgr") -> Tensor:
        """Of one scan, int16 ``(n, h, w)``; brain, subdural and bone are the picture's red, green and blue."""
        picture = []
        for level, width in ((40, 80), (75, 215), (600, 2800)):
            low, high = level - width // 2, level + width // 2
            picture.append((255 * (np.clip(hu.astype(np.int64), low, high) - low) / width).astype(np.uint8))
        read = picture[::-1] if order == "bgr" else picture
        channels = [
            (grey / 255 - mean) / std for grey, mean, std in zip(read, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
        ]
        x = torch.from_numpy(np.stack(channels, axis=1)).to(self.decoder["fc"].weight)
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.pool(self.layer0(x))))))
        context, _ = self.decoder["recurrent"](x.mean(dim=(2, 3)))
        return self.decoder["fc"](context)

    def columns(self, logits: Tensor) -> dict[str, np.ndarray]:
        """Their columns by the name of their label."""
        return {name: logits[:, i].numpy() for i, name in enumerate(self.ORDER)}

    def published(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("pool.")}


def save_nguyen(path: Path, state: dict[str, Any], zipped: bool = True, **others: Any) -> Path:
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.ones(3)
    optimizer = torch.optim.AdamW([weight])
    optimizer.step()
    content = {
        "epoch": 30,
        "arch": "an experiment",
        "state_dict": OrderedDict(state),
        "best_metric": torch.tensor(0.0637),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content | others, path, _use_new_zipfile_serialization=zipped)
    return path


def thin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes that take no space in a file, each filled with a number of its own."""
    return {
        name: torch.full((1,) * tensor.ndim, i, dtype=tensor.dtype).expand(tensor.shape)
        for i, (name, tensor) in enumerate(state.items())
    }


ENCODERS = {"resnet50": "nguyen2020-resnet50", "seresnext50": "nguyen2020-seresnext50"}


@pytest.fixture(scope="module", params=ENCODERS)
def nguyen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NguyenNet, Path]]:
    """A network and its file: the one as torch writes today, the other as torch 1.4 wrote, from under DataParallel."""
    net = NguyenNet(request.param)
    folder = tmp_path_factory.mktemp("nguyen")
    is_first = request.param == "resnet50"
    prefix = "" if is_first else "module."
    state = {f"{prefix}{name}": tensor for name, tensor in net.published().items()}
    yield net, save_nguyen(folder / f"{request.param}.pth", state, zipped=is_first)
    shutil.rmtree(folder)  # hundreds of megabytes


@pytest.fixture(scope="module")
def shapes() -> dict[str, Tensor]:
    """Names and shapes of the file with ResNet-50."""
    return thin(NguyenNet("resnet50").published())


class TestChannelOrder:
    @pytest.mark.parametrize(("order", "first"), [(None, BONE), ("bgr", BONE), ("rgb", BRAIN)])
    def test_of_nguyen_is_what_their_loader_gives_unless_it_is_named(
        self, shapes: dict[str, Tensor], tmp_path: Path, order: str | None, first: Window
    ) -> None:
        classifier = ScanClassifier.load(save_nguyen(tmp_path / "a.pth", shapes), channel_order=order)
        windows = (BRAIN, SUBDURAL, BONE)
        assert classifier.settings.windows.channels == (windows if order == "rgb" else windows[::-1])
        assert classifier.model.windows.levels[0] == first.level
        assert classifier.model.windows.mean.tolist() == pytest.approx([0.485, 0.456, 0.406])  # of places, not of windows

    @pytest.mark.parametrize("kind", ["folder", "checkpoint", "pan"])
    def test_of_other_models_is_refused(self, tmp_path: Path, kind: str) -> None:
        if kind == "pan":
            (tmp_path / "classifier").mkdir()
            (tmp_path / "classifier" / "model.safetensors").write_bytes(b"")
        else:
            make_classifier().save_pretrained(tmp_path)
        if kind == "checkpoint":
            about = read_model(tmp_path).about
            torch.save({"ich_lstm": about, "state_dict": make_classifier().state_dict()}, tmp_path / "a.ckpt")
        with pytest.raises(ConfigError) as caught:
            ScanClassifier.load(tmp_path / "a.ckpt" if kind == "checkpoint" else tmp_path, channel_order="bgr")
        assert caught.value.code == "no_channel_order"


class TestNguyen:
    def test_says_what_the_published_network_says(self, nguyen: tuple[NguyenNet, Path]) -> None:
        net, file = nguyen
        classifier = ScanClassifier.load(file)
        assert classifier.name == ENCODERS[file.stem]
        assert classifier.preprocessing == Preprocessing(size=512, crop="none")
        assert (classifier.slice_mm, classifier.is_synthetic, classifier.training) == (5.0, False, False)
        scans = [hounsfield(5, 64, seed=1), hounsfield(3, 64, seed=2)]
        got = run(classifier.model.double(), scans)
        net.double()
        theirs = [net.slice_logits(scan) for scan in scans]
        net.float()
        of_slices = net.columns(torch.cat(theirs))
        of_scans = net.columns(torch.stack([logits.sigmoid().amax(dim=0) for logits in theirs]))
        for i, label in enumerate(LABELS):
            np.testing.assert_allclose(got.slice_logits[:, i].numpy(), of_slices[label], rtol=0, atol=1e-5)
            np.testing.assert_allclose(got.scan_logits[:, i].sigmoid().numpy(), of_scans[label], rtol=0, atol=1e-5)
        with torch.inference_mode():
            other = ScanClassifier.load(file, channel_order="rgb").model.double()
            first = run(other, scans[:1]).slice_logits
        as_rgb = net.double().columns(net.slice_logits(scans[0], "rgb"))
        net.float()
        for i, label in enumerate(LABELS):
            np.testing.assert_allclose(first[:, i].numpy(), as_rgb[label], rtol=0, atol=1e-5)
        assert (first - got.slice_logits[: len(first)]).abs().max() > 0.01
        # The labels differ by far more than that, and so do the slices.
        values = torch.cat(theirs)
        assert torch.cdist(values.T, values.T).add(torch.eye(6) * 9).min() > 0.1
        assert values.std(dim=0).min() > 0.01

    def test_by_its_command(
        self, nguyen: tuple[NguyenNet, Path], phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        net, file = nguyen
        monkeypatch.setitem(NGUYEN_PREPROCESSING, "size", 64)  # at 512 the same would take 64 times as long
        study = tmp_path / "study"
        study.mkdir()
        for header in index_source(phantom).studies()[0].series[0].headers:
            shutil.copy(header.source.path, study)
        order = "rgb" if file.stem == "resnet50" else "bgr"
        options = ["--device", "cpu", "--raw-probabilities", *(["--channel-order", order] if order == "rgb" else [])]
        assert predict.main([str(study), "--checkpoint", str(file), "--out", str(tmp_path / "out"), *options]) == 0
        slices = pd.read_csv(tmp_path / "out" / "slices.csv")
        hu = preprocess_scan(read_scan(study), Preprocessing(size=64, crop="none"))
        theirs = net.columns(net.slice_logits(hu, order).sigmoid())
        for label in LABELS:
            np.testing.assert_allclose(slices[label], theirs[label], rtol=0, atol=1e-4)  # both in float32
        assert json.loads((tmp_path / "out" / "manifest.json").read_text())["model"]["name"] == ENCODERS[file.stem]

    def test_a_stem_without_names(self, shapes: dict[str, Tensor], tmp_path: Path) -> None:
        renamed = {
            name.replace("layer0.conv1.", "layer0.0.").replace("layer0.bn1.", "layer0.1."): t for name, t in shapes.items()
        }
        assert "layer0.1.running_var" in renamed
        one, other = (read_released(save_nguyen(tmp_path / f"{i}.pth", state)) for i, state in enumerate((shapes, renamed)))
        assert one is not None
        assert other is not None
        assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
        assert (one.weights["encoder.network.bn1.running_var"] == renamed["layer0.1.running_var"]).all()

    def test_old_files_count_no_batches(self, shapes: dict[str, Tensor], tmp_path: Path) -> None:
        state = {name: tensor for name, tensor in shapes.items() if not name.endswith("num_batches_tracked")}
        assert len(state) < len(shapes)
        assert ScanClassifier.load(save_nguyen(tmp_path / "a.pth", state)).name == "nguyen2020-resnet50"

    def test_half_precision_is_widened(self, shapes: dict[str, Tensor], tmp_path: Path) -> None:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in shapes.items()}
        released = read_released(save_nguyen(tmp_path / "a.pth", state))
        assert released is not None
        assert released.weights["sequence_classifier.weight"].dtype == torch.float32

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda state: state.pop("layer0.conv1.weight"), "layer0.conv1.weight"),
            (lambda state: state.pop("layer3.5.bn2.running_mean"), "layer3.5.bn2.running_mean"),
            (lambda state: state.pop("decoder.recurrent.weight_hh_l1_reverse"), "decoder.recurrent.weight_hh_l1_reverse"),
            (lambda state: state.update({"fc.weight": torch.zeros(6, 2048)}), "fc.weight"),
            (lambda state: state.update({"decoder.recurrent.weight_ih_l2": torch.zeros(2, 2)}), "weight_ih_l2"),
            (lambda state: state.update({"decoder.fc.weight": torch.zeros(6, 512)}), "decoder.fc.weight (6, 512)"),
            (lambda state: state.update({"layer1.0.conv2.weight": torch.zeros(128, 4, 3, 3)}), "layer1.0.conv2.weight"),
            (lambda state: state.update({"decoder.fc.bias": 3.0}), "decoder.fc.bias float"),
            (lambda state: state.update({"decoder.fc.bias": torch.zeros(6, dtype=torch.int64)}), "decoder.fc.bias"),
        ],
        ids=["stem", "statistics", "recurrence", "2D classifier", "third layer", "one way", "ResNeXt", "number", "integers"],
    )
    def test_another_network_is_refused(self, shapes: dict[str, Tensor], tmp_path: Path, change: Any, named: str) -> None:
        state = dict(shapes)
        change(state)
        error = refusal(save_nguyen(tmp_path / "a.pth", state))
        assert error.code == "weights_do_not_fit"
        assert named in error.got

    def test_of_many_names_the_first_few_are_told(self, shapes: dict[str, Tensor], tmp_path: Path) -> None:
        state = {name: tensor for name, tensor in shapes.items() if not name.startswith("layer4.")}
        assert "layer4.0.bn1.running_var and 45 more" in refusal(save_nguyen(tmp_path / "a.pth", state)).got

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickle_is_not_executed(self, shapes: dict[str, Tensor], tmp_path: Path, zipped: bool) -> None:
        class Attack:
            def __reduce__(self) -> tuple:
                return Path.touch, (tmp_path / "executed",)

        file = save_nguyen(tmp_path / "a.pth", shapes, zipped, optimizer=Attack())
        assert refusal(file).code == "not_a_model"
        assert read_released(file) is None
        (tmp_path / "b.pth").write_bytes(pickle.dumps(Attack()))
        assert refusal(tmp_path / "b.pth").code == "not_a_model"
        assert not (tmp_path / "executed").exists()

    def test_other_files_are_none_of_these(self, tmp_path: Path) -> None:
        for i, content in enumerate(
            ({"state_dict": {"layer0.conv1.weight": torch.zeros(3)}}, {"state_dict": {}}, torch.zeros(3), [1])
        ):
            torch.save(content, tmp_path / f"{i}.pth")
            assert read_released(tmp_path / f"{i}.pth") is None
            assert refusal(tmp_path / f"{i}.pth").code == "not_a_model"
        assert read_released(tmp_path / "none.pth") is None


class AttentionPool(nn.Module):
    """Attention over the slices for each label, and a linear classifier for each."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(features, 128), nn.Tanh(), nn.Linear(128, 6))
        self.classifier_weight = nn.Parameter(torch.randn(6, features) * 0.3)
        self.classifier_bias = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        scores = self.attention(x) * 3  # (n, 6)
        weights = scores.exp() / scores.exp().sum(dim=0)
        return torch.stack([weights[:, k] @ x @ self.classifier_weight[k] + self.classifier_bias[k] for k in range(6)])


class PanNet(nn.Module):
    """Pan's CNN and recurrent head, under the names of the two files; the blend on probabilities."""

    ORDER = ("EDH", "IPH", "IVH", "SAH", "SDH", "ICH")
    SLICE_ALPHAS = (0.75, 0.75, 0.75, 0.75, 0.75, 1.0)
    SCAN_ALPHAS = (0.5, 0.25, 0.5, 1.0, 0.5, 0.5)

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.classifier = nn.ModuleDict(
                {
                    "backbone": timm.create_model("maxvit_tiny_tf_512", num_classes=0, global_pool="", in_chans=9),
                    "linear": nn.Linear(512, 6),
                }
            )
            self.head = nn.ModuleDict(
                {
                    "input_norm": nn.LayerNorm(512),
                    "projection": nn.Linear(512, 512),
                    "projection_norm": nn.LayerNorm(512),
                    "sequence": nn.GRU(513, 256, 2, bidirectional=True, dropout=0.2),
                    "slice_head": nn.Linear(512, 6),
                    "sequence_pool": AttentionPool(512),
                    "mil_pool": AttentionPool(512),
                }
            )
            nn.init.normal_(self.classifier["linear"].weight, std=0.3)
            nn.init.normal_(self.head["slice_head"].weight, std=0.3)
            nn.init.normal_(self.head["slice_head"].bias)
        stir(self, seed=2)
        self.eval()

    def channels(self, hu: np.ndarray) -> np.ndarray:
        """What the CNN is shown, ``(n, 9, h, w)``."""
        windowed = []
        for level, width in ((40, 80), (80, 200), (600, 2800)):
            low, high = level - width / 2, level + width / 2
            windowed.append((np.clip(hu.astype(np.float64), low, high) - low) / (width + 1e-6))
        here = np.stack(windowed, axis=1)  # (n, 3, h, w)
        nothing = np.zeros_like(here[:1])
        before, after = np.concatenate([nothing, here[:-1]]), np.concatenate([here[1:], nothing])
        return 2 * np.concatenate([before, here, after], axis=1) - 1

    @torch.inference_mode()
    def features(self, hu: np.ndarray) -> Tensor:
        maps = [self.classifier["backbone"](torch.from_numpy(x[None]).float()) for x in self.channels(hu)]
        return torch.cat(maps).flatten(2).mean(dim=2)

    @torch.inference_mode()
    def probabilities(self, features: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Of each slice ``(n, 6)`` and of the scan ``(6,)``, from one scan's features ``(n, 512)``."""
        n = len(features)
        own = self.classifier["linear"](features).sigmoid().numpy()
        looked_at = np.arange(n) if n <= 64 else np.rint(np.linspace(0, n - 1, 64)).astype(int)
        x = self.head["projection"](self.head["input_norm"](features[looked_at]))
        x = self.head["projection_norm"](nn.functional.gelu(x))
        place = torch.tensor(looked_at / max(n - 1, 1)).to(x)
        context, _ = self.head["sequence"](torch.cat([x, place[:, None]], dim=1))
        in_context = self.head["slice_head"](context).sigmoid().numpy()
        of_scan = self.head["sequence_pool"](context).sigmoid().numpy()
        slices, scan = np.empty((n, 6)), np.empty(6)
        for i in range(n):
            nearest = min(range(len(looked_at)), key=lambda j: (abs(looked_at[j] - i), j))
            for k in range(6):
                slices[i, k] = blend(own[i, k], in_context[nearest, k], self.SLICE_ALPHAS[k])
        for k in range(6):
            largest = np.clip(own[:, k].max(), 1e-6, 1 - 1e-6)
            scan[k] = blend(largest, of_scan[k], self.SCAN_ALPHAS[k])
        return slices, scan


def blend(one: float, other: float, alpha: float) -> float:
    """Of two probabilities, by their odds."""
    odds = (one / (1 - one)) ** (1 - alpha) * (other / (1 - other)) ** alpha
    return odds / (1 + odds)


PAN_CONFIG = {
    "model_type": "ct_head_hemorrhage_detection",
    "architecture": {"slice_classifier": "maxvit_tiny_tf_512.in1k", "segmentation_folds": 5},
    "input": {
        "height": 512,
        "width": 512,
        "adjacent_slices": 3,
        "windows": [
            {"name": "brain", "center": 40, "width": 80},
            {"name": "subdural", "center": 80, "width": 200},
            {"name": "bone", "center": 600, "width": 2800},
        ],
    },
    "labels": ["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"],
    "series_blend_alphas": [0.5, 0.25, 0.5, 1.0, 0.5, 0.5],
}


def save_pan(folder: Path, net: PanNet) -> None:
    for name, part in (("classifier", net.classifier), ("sequence", net.head)):
        (folder / name).mkdir(parents=True)
        # Attention there has no factor 3: it is part of the weights.
        state = {key: tensor.clone() for key, tensor in part.state_dict().items()}
        for key in [key for key in state if ".attention.2." in key]:
            state[key] *= 3
        save_file(state, folder / name / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(PAN_CONFIG))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")


@pytest.fixture(scope="module")
def pan_net() -> PanNet:
    return PanNet()


@pytest.fixture(scope="module")
def pan_folder(pan_net: PanNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("pan")
    save_pan(folder, pan_net)
    yield folder
    shutil.rmtree(folder)  # more than a hundred megabytes


@pytest.fixture(scope="module")
def pan(pan_folder: Path) -> ScanClassifier:
    return ScanClassifier.load(pan_folder)


@pytest.fixture
def copy(pan_folder: Path, tmp_path: Path) -> Path:
    """A folder of one's own, to spoil; the weights of the CNN are only linked."""
    folder = tmp_path / "copy"
    (folder / "classifier").mkdir(parents=True)
    (folder / "classifier" / "model.safetensors").hardlink_to(pan_folder / "classifier" / "model.safetensors")
    shutil.copytree(pan_folder / "sequence", folder / "sequence")
    shutil.copy(pan_folder / "config.json", folder)
    return folder


class Recorder(nn.Module):
    """In the place of the CNN: notes what it is shown."""

    is_frozen = False

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.shown.append(x)
        return x.new_zeros(len(x), 512)


class TestPan:
    def test_says_what_the_published_network_says(self, pan: ScanClassifier, pan_net: PanNet) -> None:
        scan = hounsfield(2, 512, seed=3)
        features = pan_net.features(scan)
        slices, of_scan = pan_net.probabilities(features)
        got = run(pan.model, [scan])
        np.testing.assert_allclose(got.slice_logits.sigmoid().numpy(), slices, rtol=0, atol=1e-5)
        np.testing.assert_allclose(got.scan_logits[0].sigmoid().numpy(), of_scan, rtol=0, atol=1e-5)
        assert (features[0] - features[1]).abs().max() > 0.01

    def test_shows_the_cnn_what_the_published_one_is_shown(self, pan: ScanClassifier, pan_net: PanNet) -> None:
        scans = [hounsfield(4, 32, seed=4), hounsfield(1, 32, seed=5), hounsfield(9, 32, seed=6)]
        encoder, pan.model.encoder = pan.model.encoder, Recorder()
        try:
            run(pan.model, scans)
            shown = torch.cat(pan.model.encoder.shown)
        finally:
            pan.model.encoder = encoder
        expected = np.concatenate([pan_net.channels(scan) for scan in scans])
        np.testing.assert_allclose(shown.numpy(), expected, rtol=0, atol=1e-6)

    @pytest.mark.parametrize("lengths", [[1], [2, 64, 5], [65], [150, 7]], ids=str)
    def test_blends_what_the_published_head_says(self, pan: ScanClassifier, pan_net: PanNet, lengths: list[int]) -> None:
        draw = torch.Generator().manual_seed(sum(lengths))
        scans = [torch.randn(n, 512, generator=draw, dtype=torch.float64) for n in lengths]
        try:
            pan.model.double()
            pan_net.double()
            with torch.inference_mode():
                got = pan.model.head(torch.cat(scans), torch.tensor(lengths))
            expected = [pan_net.probabilities(scan) for scan in scans]
        finally:
            pan.model.float()
            pan_net.float()
        slices = np.concatenate([slices for slices, _ in expected])
        np.testing.assert_allclose(got.slice_logits.sigmoid().numpy(), slices, rtol=0, atol=1e-6)
        np.testing.assert_allclose(got.scan_logits.sigmoid().numpy(), np.stack([scan for _, scan in expected]), rtol=0, atol=1e-6)

    def test_the_labels_are_told_apart(self, pan: ScanClassifier) -> None:
        assert tuple(SHORT[label] for label in LABELS) == PanNet.ORDER
        features = torch.randn(9, 512, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            values = pan.model.head(features, torch.tensor([9])).slice_logits.sigmoid()
        assert torch.cdist(values.T, values.T).add(torch.eye(6) * 9).min() > 0.1

    def test_the_most_suspicious_slice_is_clipped(self, pan: ScanClassifier, pan_net: PanNet) -> None:
        """A CNN that is sure of a slice does not overrule the context: at most the odds of 999,999 to 1 count."""
        weight = pan_net.classifier["linear"].weight.detach()
        features = torch.linalg.pinv(weight) @ torch.tensor([40.0, -40.0, 20.0, -20.0, 14.0, -14.0])
        with torch.inference_mode():
            logits = pan.model.head(features[None], torch.tensor([1]))
            assert logits.encoder_logits is not None
            assert logits.encoder_logits[0, 0] > 30
            of_context = logits.scan_logits[0] - pan.model.scan_gate * logits.encoder_logits[0].clamp(-13.8155096, 13.8155096)
            expected = pan.model.pooling(
                logits.slice_logits, pan.model.sequence(features[None], torch.tensor([1]), None), torch.tensor([1])
            )
        torch.testing.assert_close(of_context, expected[0], rtol=0, atol=1e-5)

    def test_knows_how_it_is_fed(self, pan: ScanClassifier) -> None:
        assert (pan.name, pan.slice_mm, pan.is_synthetic, pan.training) == ("ianpan-2026", 5.0, False, False)
        assert pan.preprocessing == Preprocessing(size=512, crop="center")
        assert pan.model.settings.max_slices == 64

    def test_saved_it_is_a_model_like_any_other(self, pan: ScanClassifier, tmp_path: Path) -> None:
        pan.save_pretrained(tmp_path)
        again = ScanClassifier.load(tmp_path)
        assert (again.weights_hash(), again.name, again.settings) == (pan.weights_hash(), pan.name, pan.settings)
        shutil.rmtree(tmp_path)

    def test_a_pickle_beside_it_is_refused(self, copy: Path) -> None:
        (copy / "segmentation").mkdir()
        (copy / "segmentation" / "fold0.bin").write_bytes(pickle.dumps({}))
        assert refusal(copy).code == "pickle_in_model"

    @pytest.mark.parametrize("file", ["config.json", "sequence/model.safetensors", "classifier/model.safetensors"])
    def test_incomplete(self, copy: Path, file: str) -> None:
        (copy / file).unlink()
        error = refusal(copy)
        assert error.code == "weights_damaged"
        assert file in error.got

    def test_tampered_with(self, copy: Path) -> None:
        file = copy / "sequence" / "model.safetensors"
        whole = file.read_bytes()
        for content in (whole[:-100], whole[:5], b"", b"\xff" * 8 + whole[8:], whole[:50] + b"}" + whole[51:]):
            file.write_bytes(content)
            assert refusal(copy).code == "weights_damaged"

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda state: state.pop("sequence_pool.classifier_bias"), "sequence_pool.classifier_bias"),
            (lambda state: state.pop("mil_pool.attention.0.weight"), "mil_pool.attention.0.weight"),
            (lambda state: state.update({"criterion.weight": torch.zeros(6)}), "criterion.weight"),
            (lambda state: state.update({"mil_pool.more": torch.zeros(6)}), "mil_pool.more"),
            (lambda state: state.update({"slice_head.weight": torch.zeros(6, 256)}), "slice_head.weight (6, 256)"),
        ],
        ids=["missing", "missing, unused", "unexpected", "unexpected, unused", "shape"],
    )
    def test_another_network_is_refused(self, copy: Path, change: Any, named: str) -> None:
        file = copy / "sequence" / "model.safetensors"
        state = load_file(file)
        change(state)
        save_file(state, file)
        error = refusal(copy)
        assert error.code == "weights_do_not_fit"
        assert named in error.got

    @pytest.mark.parametrize(
        "changes",
        [
            {"architecture": {"slice_classifier": "tf_efficientnetv2_m.in21k"}},
            {"architecture": "maxvit"},
            {"input": {"windows": [{"center": 40, "width": 80}]}},
            {"input": {"windows": [{"center": 40, "width": 80}, {"center": 80, "width": 200}, {"center": 600, "width": 2000}]}},
            {"input": {"adjacent_slices": 5}},
            {"labels": ["any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural"]},
            {"slice_blend_alphas": [0.5] * 6},
            {"series_blend_alphas": [0.5] * 5},
            {"training_max_sequence_length": 128},
        ],
        ids=str,
    )
    def test_a_description_of_another_model_is_refused(self, copy: Path, changes: dict) -> None:
        (copy / "config.json").write_text(json.dumps(PAN_CONFIG | changes))
        error = refusal(copy)
        assert error.code == "other_release"
        assert next(iter(changes)) in error.got

    def test_a_description_of_no_model_is_refused(self, copy: Path) -> None:
        for text in ("[]", "null", "3"):
            (copy / "config.json").write_text(text)
            assert refusal(copy).code == "other_release"
        (copy / "config.json").write_text("{")
        assert refusal(copy).code == "weights_damaged"

    def test_what_a_description_leaves_out_is_no_matter(self, copy: Path) -> None:
        (copy / "config.json").write_text(json.dumps({"model_type": "x", "labels": list(LABELS), "further": [1]}))
        released = read_released(copy)
        assert released is not None
        assert released.name == "ianpan-2026"

    def test_other_folders_are_none_of_these(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(PAN_CONFIG))
        assert read_released(tmp_path) is None
        assert refusal(tmp_path).code == "not_a_model"


@pytest.mark.parametrize("name", ["NGUYEN", "PAN"])
def test_every_setting_is_named(name: str) -> None:
    """A later default must not change what an old file means."""
    tree = ast.parse(inspect.getsource(weights))
    (call,) = (each.value for each in tree.body if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name)
    built = {node.func.id: {word.arg for word in node.keywords} for node in ast.walk(call) if isinstance(node, ast.Call)}
    settings = getattr(weights, name)
    parts = [settings, *(value for value in vars(settings).values() if is_dataclass(value))]
    assert len(parts) == 6
    for part in parts:
        stored = {
            each.name for each in fields(part) if each.metadata.get("stored", True) or each.metadata["loaded"] != each.default
        }
        assert built[type(part).__name__] == stored - ({"slices"} if isinstance(part, Reduction) else set())  # none is fitted
