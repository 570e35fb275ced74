"""Converts published weights to weights of a `ScanModel`; nothing in their files is executed.

Two systems are known. Nguyen et al. 2020, "A CNN-LSTM architecture for detection of intracranial hemorrhage on CT scans", keep a
PyTorch checkpoint per encoder. Pan 2026, ``ianpan/ct-head-hemorrhage-detection`` on the Hugging Face hub, is a folder of
safetensors: a CNN, and a recurrent head whose logits are blended with the CNN's; the blend is folded into the weights here.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ich_lstm.errors import CheckpointError
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import GRU, LSTM
from ich_lstm.models.pooling import Pooling
from ich_lstm.models.reduction import Reduction
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.settings import merged, to_stored
from ich_lstm.window import BONE, BRAIN, SUBDURAL

RSNA_SLICE_MM = 5.0
"""The usual distance of slices in the data of RSNA's challenge, on which both systems were trained."""

CONFIG_FILE = "config.json"
CLASSIFIER_FILE = "classifier/model.safetensors"
SEQUENCE_FILE = "sequence/model.safetensors"

Names = Callable[[str], str | None]
"""From a name in `ScanModel` to the name in the release; None for what the release does not have."""

FIRST_FEW = 5
"""So many names are shown of those that are wrong."""


class ReleasedModel(NamedTuple):
    """Somebody's release, as what it takes to build and to feed a `ScanModel`.

    Args:
        name: What predictions call the model.
        settings: Settings of `ScanModel`, as they are stored.
        preprocessing: Keywords of `ich_lstm.preprocessing.crop_and_resize.Preprocessing`.
        weights: State of the `ScanModel`.
        source: Where it comes from, and under which licence, in a sentence.
    """

    name: str
    settings: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: dict[str, Tensor]
    source: str


def read_released(path: Path, channel_order: "ChannelOrder | None" = None) -> ReleasedModel | None:
    """Read weights that others released.

    Args:
        path: Nguyen et al.'s checkpoint, or the folder of Pan's release with ``config.json``, ``classifier`` and ``sequence``.
        channel_order: Of Nguyen et al.'s windows; None: ``bgr``, which is what their loader does.

    Returns:
        The model; None if the path is neither, or cannot be read as such.

    Raises:
        CheckpointError: If it is one of them, and damaged, incomplete, or another one than is known here.
    """
    if path.is_dir():
        return _read_pan(path) if is_released_folder(path) else None
    state = _nguyen_state(path)
    return None if state is None else _read_nguyen(path, state, channel_order or "bgr")


def is_released_folder(path: Path) -> bool:
    """Whether a folder is laid out like Pan's release, be it complete or not."""
    return (path / CLASSIFIER_FILE).is_file() or (path / SEQUENCE_FILE).is_file()


# Every field is named in both, so that no later default changes what an old file means.

# Nguyen et al. 2020

NGUYEN = ModelSettings(
    encoder=Encoder(backbone="resnet50", pretrained=False, global_pool="avg", adjacent_slices=0, dropout=0.0, classifier=False),
    windows=Windows(
        channels=(BONE, SUBDURAL, BRAIN),  # see `ChannelOrder`
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        quantize=True,
        integer_widths=True,
        learnable=False,
    ),
    reduction=Reduction(kind="none", features=None),
    head=LSTM(
        hidden_size=512,
        num_layers=2,
        bidirectional=True,
        norm=False,
        projection=None,
        input_dropout=0.0,
        layer_dropout=0.0,
        recurrent_dropout=0.0,
        output_dropout=0.0,
        positions="none",
        reversal=0.0,
        encoder_residual=False,
        encoder_probabilities=False,
    ),
    pooling=Pooling(kind="max", attention_size=64, encoder_residual=False, instances=False),
    coherent_any=False,
    max_slices=None,
)

ChannelOrder = Literal["bgr", "rgb"]
"""In which order Nguyen et al.'s network saw the windows, if their pictures hold them as in the paper's figure, brain in red,
subdural in green, and bone in blue. ``bgr``: bone first, as their loader gives them: it calls OpenCV with a flag that means "any
colour", which leaves OpenCV's own order, blue first. ``rgb``: brain first, as the paper lists them, which is right if their
program wrote the pictures with OpenCV too, brain first."""

NGUYEN_PREPROCESSING: dict[str, Any] = {"size": 512, "crop": "none", "clip": None}

NGUYEN_LABELS = ("any", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "epidural")
"""What their network's outputs stand for, in their order."""

NGUYEN_SOURCE = (
    "Nguyen et al. 2020, github.com/vinbigdata-medical/midl2020-cnnlstm-ich, Apache-2.0; trained on the data of RSNA's 2019 "
    "challenge, whose terms are non-commercial."
)


def _nguyen_state(path: Path) -> dict[str, Any] | None:
    """The state dict of their checkpoint, without the prefix of DataParallel; None if the file is something else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols
            # weights_only: tensors and plain values are read, anything that would run code is refused.
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = content["state_dict"]
        names = list(state)
        if all(name.startswith("module.") for name in names):
            state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        return state if any(name.startswith("decoder.recurrent.") for name in state) else None
    except Exception:  # the unpickler stumbles over foreign bytes in every way there is
        return None


def _read_nguyen(path: Path, state: dict[str, Any], channel_order: ChannelOrder) -> ReleasedModel:
    is_se = any(".se_module." in name for name in state)
    backbone = "legacy_seresnext50_32x4d" if is_se else "resnet50"
    # In a Sequential without names the stem's convolution and normalization are modules 0 and 1.
    stem = {"conv1": "0", "bn1": "1"} if "layer0.0.weight" in state else {"conv1": "conv1", "bn1": "bn1"}

    def published(name: str) -> str | None:
        part, _, rest = name.partition(".")
        if part == "encoder":
            rest = rest.removeprefix("network.").removeprefix("layer0.")
            module, _, tensor = rest.partition(".")
            return f"layer0.{stem[module]}.{tensor}" if module in stem else rest
        if part == "sequence":
            return f"decoder.recurrent.{rest.removeprefix('recurrence.')}"
        return f"decoder.fc.{rest}" if part == "sequence_classifier" else None

    channels = NGUYEN.windows.channels if channel_order == "bgr" else NGUYEN.windows.channels[::-1]
    settings = merged(NGUYEN, {"encoder": {"backbone": backbone}, "windows": {"channels": channels}})
    weights = _renamed(state, settings, published, labels=NGUYEN_LABELS, where=str(path))
    name = f"nguyen2020-{'seresnext50' if is_se else 'resnet50'}"
    return ReleasedModel(name, to_stored(settings), NGUYEN_PREPROCESSING, weights, NGUYEN_SOURCE)


# Pan 2026

PAN = ModelSettings(
    encoder=Encoder(
        backbone="maxvit_tiny_tf_512", pretrained=False, global_pool="late", adjacent_slices=1, dropout=0.0, classifier=True
    ),
    windows=Windows(
        channels=((40.0, 80.0), (80.0, 200.0), (600.0, 2800.0)),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        quantize=False,
        integer_widths=False,
        learnable=False,
    ),
    reduction=Reduction(kind="none", features=None),
    head=GRU(
        hidden_size=256,
        num_layers=2,
        bidirectional=True,
        norm=True,
        projection=512,
        input_dropout=0.0,
        layer_dropout=0.2,
        recurrent_dropout=0.0,
        output_dropout=0.0,
        positions="relative",
        reversal=0.0,
        encoder_residual=True,
        encoder_probabilities=False,
    ),
    pooling=Pooling(kind="feature-attention", attention_size=128, encoder_residual=True, instances=False),
    coherent_any=False,
    max_slices=64,
)

PAN_PREPROCESSING: dict[str, Any] = {"size": 512, "crop": "center", "clip": None}

PAN_LABELS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
"""What their network's outputs stand for, in their order."""

PAN_SLICE_SHARES = (0.75, 0.75, 0.75, 0.75, 0.75, 1.0)
PAN_SCAN_SHARES = (0.5, 0.25, 0.5, 1.0, 0.5, 0.5)
"""The recurrent head's share in the logits of slices and scans, in the order of `PAN_LABELS`; the rest is the CNN's."""

PAN_CONFIG: dict[str, Any] = {
    "architecture": {"slice_classifier": PAN.encoder.backbone},
    "input": {
        "height": 512,
        "width": 512,
        "large_image_resize_threshold": 640,
        "adjacent_slices": 3,
        "channel_order": "slice-major",
        "windows": [{"center": level, "width": width} for level, width in PAN.windows.channels],
        "normalization": {"input_min": 0, "input_max": 1, "output_min": -1, "output_max": 1},
    },
    "labels": list(PAN_LABELS),
    "pooled_feature_dimension": 512,
    "slice_blend_alphas": list(PAN_SLICE_SHARES),
    "series_blend_alphas": list(PAN_SCAN_SHARES),
    "series_baseline_aggregation": "max_probability",
    "training_max_sequence_length": PAN.max_slices,
}
"""What their ``config.json`` says, as far as the model depends on it."""

PAN_SOURCE = (
    "Pan 2026, huggingface.co/ianpan/ct-head-hemorrhage-detection, MIT licence; trained on the data of RSNA's 2019 challenge, "
    "whose terms are non-commercial."
)

PAN_NAMES = {
    "encoder.network.": "backbone.",
    "encoder_classifier.": "linear.",
    "sequence.norm.": "input_norm.",
    "sequence.projection.0.": "projection.",
    "sequence.projection.2.": "projection_norm.",
    "sequence.recurrence.": "sequence.",
    "sequence_classifier.": "slice_head.",
    "pooling.": "sequence_pool.",
}

PAN_UNUSED = "mil_pool."
"""Attention over what the projection gives, whose logits are in no prediction: it must be there, and is left behind."""


def _read_pan(path: Path) -> ReleasedModel:
    _check_pan_config(path)
    classifier, sequence = (_load_safetensors(path, file) for file in (CLASSIFIER_FILE, SEQUENCE_FILE))
    unused = {name for name in sequence if name.startswith(PAN_UNUSED)}
    used = {name: tensor for name, tensor in sequence.items() if name not in unused}

    def published(name: str) -> str | None:
        return next((name.replace(ours, theirs, 1) for ours, theirs in PAN_NAMES.items() if name.startswith(ours)), None)

    weights = _renamed(classifier | used, PAN, published, labels=PAN_LABELS, where=str(path))
    expected = {PAN_UNUSED + name.removeprefix("pooling.") for name in weights if name.startswith("pooling.")}
    if unused != expected:
        raise _do_not_fit(path, missing=sorted(expected - unused), unexpected=sorted(unused - expected))
    # (1 - a) e + a s, with e the CNN's logits: the gate is 1 - a, and the linear layer that gives s is scaled by a.
    for names, gate, shares in (
        (("sequence_classifier.weight", "sequence_classifier.bias"), "gate", PAN_SLICE_SHARES),
        (("pooling.classifier_weight", "pooling.classifier_bias"), "scan_gate", PAN_SCAN_SHARES),
    ):
        share = torch.tensor(shares)[_rows_by_name(PAN_LABELS, str(path))]
        for name in names:
            weights[name] = weights[name] * share.reshape(-1, *[1] * (weights[name].ndim - 1))
        weights[gate] = 1 - share
    return ReleasedModel("ianpan-2026", to_stored(PAN), PAN_PREPROCESSING, weights, PAN_SOURCE)


def _check_pan_config(path: Path) -> None:
    try:
        config = json.loads((path / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{CONFIG_FILE}: {type(error).__name__}: {error}") from error
    differences = _differences(PAN_CONFIG, config)
    if differences:
        raise CheckpointError(
            "other_release",
            where=f"{path / CONFIG_FILE}",
            got=first_of((f"{name} = {got!r}" for name, got, _ in differences), FIRST_FEW, separator="; "),
            expected=first_of((repr(expected) for *_, expected in differences), FIRST_FEW, separator="; "),
            todo="This is another model than the one that is known here (docs/released.md).",
        )


def _differences(expected: Any, got: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """Where a description says something else, as names, what it says, and what was expected; what it leaves out is no matter."""
    if isinstance(expected, dict) and isinstance(got, dict):
        shared = [key for key in expected if key in got]
        return [found for key in shared for found in _differences(expected[key], got[key], f"{name}.{key}".removeprefix("."))]
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        pairs = enumerate(zip(expected, got, strict=True))
        return [found for i, (of_expected, of_got) in pairs for found in _differences(of_expected, of_got, f"{name}[{i}]")]
    # timm's names may carry the tag of the weights with which the training began.
    is_same = got == expected or (isinstance(expected, str) and isinstance(got, str) and got.startswith(f"{expected}."))
    return [] if is_same else [(name or "all", got, expected)]


def _load_safetensors(path: Path, file: str) -> dict[str, Tensor]:
    try:
        return load_file(path / file)
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, f"{file}: {type(error).__name__}: {error}") from error


# Both


LABEL_TENSORS = ("encoder_classifier.", "sequence_classifier.", "pooling.attention.2.", "pooling.classifier_")
"""With these begin the names of the tensors that have a row for each label."""


def _rows_by_name(released: Sequence[str], where: str) -> list[int]:
    """For each label in the order of `LABELS`, the number of the released network's output that stands for it."""
    if set(released) != set(LABELS):
        raise CheckpointError(
            "other_labels",
            where=where,
            got=f"outputs for {', '.join(released)}",
            expected=f"one output for each of {', '.join(LABELS)}",
            todo="Train a model of your own for these labels: a released network has no output for a label that it was not "
            "trained on.",
        )
    return [released.index(label) for label in LABELS]


COUNTER = "num_batches_tracked"
"""Batch-norm layers count batches only since PyTorch 0.4.1, and nothing depends on it in evaluation."""


def _renamed(
    state: dict[str, Any], settings: ModelSettings, published: Names, *, labels: Sequence[str], where: str
) -> dict[str, Tensor]:
    """The weights under our names, all of them and no others, in our precision and in the order of our labels."""
    rows = _rows_by_name(labels, where)
    with torch.device("meta"):
        wanted = ScanModel(settings).state_dict()
    names = {ours: theirs for ours in wanted if (theirs := published(ours)) is not None}
    missing = [theirs for theirs in names.values() if theirs not in state and not theirs.endswith(COUNTER)]
    unexpected = sorted(set(state) - set(names.values()))
    if missing or unexpected:
        raise _do_not_fit(where, missing=missing, unexpected=unexpected)
    weights = _window_buffers(settings)
    wrong = []
    for ours, theirs in names.items():
        like, tensor = wanted[ours], state.get(theirs, torch.zeros((), dtype=torch.int64))
        if not isinstance(tensor, Tensor) or tensor.shape != like.shape or tensor.is_floating_point() != like.is_floating_point():
            wrong.append(f"{theirs} {tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__}")
            continue
        weights[ours] = (tensor[rows] if ours.startswith(LABEL_TENSORS) else tensor).to(like.dtype)
    if wrong:
        raise CheckpointError(
            "weights_do_not_fit",
            where=where,
            got=first_of(wrong, FIRST_FEW),
            expected=f"the shapes of {settings.encoder.backbone} and its {type(settings.head).__name__}",
            todo="This is another network than the one that is known here, or a damaged copy.",
        )
    return weights


def _window_buffers(settings: ModelSettings) -> dict[str, Tensor]:
    return {f"windows.{name}": tensor for name, tensor in settings.windows.build().state_dict().items()}


def _do_not_fit(where: Path | str, *, missing: list[str], unexpected: list[str]) -> CheckpointError:
    parts = [f"without {first_of(missing, FIRST_FEW)}"] if missing else []
    parts += [f"with {first_of(unexpected, FIRST_FEW)}"] if unexpected else []
    return CheckpointError(
        "weights_do_not_fit",
        where=str(where),
        got=f"weights {', and '.join(parts)}",
        expected="all weights of the network that was released, and no others",
        todo="Take another copy of the file; other networks of the same authors are not known here.",
    )


def _damaged(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "weights_damaged",
        where=str(path),
        got=got,
        expected=f"{CONFIG_FILE}, {CLASSIFIER_FILE} and {SEQUENCE_FILE}, as released",
        todo="Take another copy of the model.",
    )
