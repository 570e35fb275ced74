"""Converts released weights to weights of a `ScanModel`, without executing any code in their files.

Two systems are supported. Nguyen et al. 2020, "A CNN-LSTM architecture for detection of intracranial hemorrhage on CT scans",
publish one PyTorch checkpoint per encoder. Pan 2026, ``ianpan/ct-head-hemorrhage-detection`` on the Hugging Face hub, publishes
a folder of safetensors with a CNN and a recurrent head. Pan blends the logits of the two; the conversion folds this blend into
the weights.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ich_lstm.errors import CheckpointError
from ich_lstm.files.untrusted import read_json
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import GRU, LSTM
from ich_lstm.models.pooling import Pooling
from ich_lstm.models.reduction import Reduction
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.models.stored.tensors import UNREADABLE, read_safetensors, read_torch
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.settings import merged, to_stored
from ich_lstm.window import BONE, BRAIN, SUBDURAL

RSNA_SLICE_MM = 5.0
"""The usual slice spacing in mm in the data of RSNA's 2019 challenge, on which both systems were trained."""

CONFIG_FILE = "config.json"
CLASSIFIER_FILE = "classifier/model.safetensors"
SEQUENCE_FILE = "sequence/model.safetensors"

Names = Callable[[str], str | None]
"""Maps a tensor's name in `ScanModel` to its name in the release; None if the release does not have the tensor."""

FIRST_FEW = 5
"""An error lists at most this many wrong names."""


class ReleasedModel(NamedTuple):
    """A published model, converted to settings, preprocessing and weights of a `ScanModel`.

    Args:
        name: Name of the model in predictions.
        settings: Settings of `ScanModel`, in their stored form.
        preprocessing: Keywords of `ich_lstm.preprocessing.crop_and_resize.Preprocessing`.
        weights: State dict of the `ScanModel`.
        source: One sentence on the origin and the licence of the weights.
    """

    name: str
    settings: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: dict[str, Tensor]
    source: str


def read_released(path: Path, channel_order: "ChannelOrder | None" = None) -> ReleasedModel | None:
    """Read a published model.

    Args:
        path: Nguyen et al.'s checkpoint, or the folder of Pan's release with ``config.json``, ``classifier`` and ``sequence``.
        channel_order: Order of the windows in Nguyen et al.'s network; None for ``bgr``, the order of their loader.

    Returns:
        The model; None if the path is neither of the two releases, or cannot be read as one.

    Raises:
        CheckpointError: If the release is damaged, incomplete, or a version that is not supported.
    """
    if path.is_dir():
        return _read_pan(path) if is_released_folder(path) else None
    state = _nguyen_state(path)
    return None if state is None else _read_nguyen(path, state, channel_order or "bgr")


def is_released_folder(path: Path) -> bool:
    """Whether a folder has the layout of Pan's release, even if files are missing."""
    return (path / CLASSIFIER_FILE).is_file() or (path / SEQUENCE_FILE).is_file()


# Both releases set every field, so that a later change of a default does not change the meaning of their weights.

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
"""The order in which Nguyen et al.'s network received the windows. The figure of the paper shows brain in red, subdural in green,
and bone in blue. ``bgr`` puts bone first: this is what their loader gives for such pictures, because OpenCV reads blue first.
``rgb`` puts brain first, as in the text of the paper: this is right if their pictures were written with OpenCV too, brain first.
"""

NGUYEN_PREPROCESSING: dict[str, Any] = {"size": 512, "crop": "none", "clip": None}

NGUYEN_LABELS = ("any", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "epidural")
"""The labels of the outputs of Nguyen et al.'s network, in the order of the outputs."""

NGUYEN_SOURCE = (
    "Nguyen et al. 2020, github.com/vinbigdata-medical/midl2020-cnnlstm-ich, Apache-2.0; trained on the data of RSNA's 2019 "
    "challenge, whose terms are non-commercial."
)


def _nguyen_state(path: Path) -> dict[str, Any] | None:
    """The state dict of Nguyen et al.'s checkpoint, without the prefix of DataParallel; None if the file is something else."""
    try:
        state = read_torch(path)["state_dict"]
        names = list(state)
        if all(name.startswith("module.") for name in names):
            state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
        return state if any(name.startswith("decoder.recurrent.") for name in state) else None
    except Exception:  # on a file that is no pickle, the unpickler may raise an exception of almost any type
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
"""The labels of the outputs of Pan's network, in the order of the outputs."""

PAN_SLICE_SHARES = (0.75, 0.75, 0.75, 0.75, 0.75, 1.0)
"""The share of the recurrent head in the slice logits, in the order of `PAN_LABELS`; the CNN has the remaining share."""

PAN_SCAN_SHARES = (0.5, 0.25, 0.5, 1.0, 0.5, 0.5)
"""The share of the recurrent head in the scan logits, in the order of `PAN_LABELS`; the CNN has the remaining share."""

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
"""The entries of Pan's ``config.json`` that the model depends on."""

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
"""Prefix of an attention layer that served Pan's training only. A complete release holds it, and the conversion drops it."""


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
    # Pan's logits are (1 - a) e + a s, with e of the CNN and s of the recurrent head. The gate becomes 1 - a, and the linear
    # layer that computes s is scaled by a.
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
        config = read_json(path / CONFIG_FILE)
    except (OSError, ValueError) as error:
        raise _damaged(path, f"{CONFIG_FILE}: {type(error).__name__}: {error}") from error
    differences = _differences(PAN_CONFIG, config)
    if differences:
        raise CheckpointError(
            "other_release",
            where=f"{path / CONFIG_FILE}",
            got=first_of((f"{name} = {got!r}" for name, got, _ in differences), FIRST_FEW, separator="; "),
            expected=first_of((repr(expected) for *_, expected in differences), FIRST_FEW, separator="; "),
            todo="This is not the version of the model that is supported (docs/released.md).",
        )


def _differences(expected: Any, got: Any, name: str = "") -> list[tuple[str, Any, Any]]:
    """List where a ``config.json`` differs from the expected one, as (name, got, expected); keys that it lacks are ignored."""
    if isinstance(expected, dict) and isinstance(got, dict):
        shared = [key for key in expected if key in got]
        return [found for key in shared for found in _differences(expected[key], got[key], f"{name}.{key}".removeprefix("."))]
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        pairs = enumerate(zip(expected, got, strict=True))
        return [found for i, (of_expected, of_got) in pairs for found in _differences(of_expected, of_got, f"{name}[{i}]")]
    # timm's names may end with the tag of the pretrained weights.
    is_same = got == expected or (isinstance(expected, str) and isinstance(got, str) and got.startswith(f"{expected}."))
    return [] if is_same else [(name or "all", got, expected)]


def _load_safetensors(path: Path, file: str) -> dict[str, Tensor]:
    try:
        return read_safetensors(path / file)
    except UNREADABLE as error:
        raise _damaged(path, f"{file}: {type(error).__name__}: {error}") from error


# Both releases


LABEL_TENSORS = ("encoder_classifier.", "sequence_classifier.", "pooling.attention.2.", "pooling.classifier_")
"""Prefixes of the names of tensors that have one row for each label."""


def _rows_by_name(released: Sequence[str], where: str) -> list[int]:
    """For each label in the order of `LABELS`, the index of its output in the released network."""
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
"""Name of the batch counter of batch-norm layers. Checkpoints older than PyTorch 0.4.1 lack it, and evaluation ignores it."""


def _renamed(
    state: dict[str, Any], settings: ModelSettings, published: Names, *, labels: Sequence[str], where: str
) -> dict[str, Tensor]:
    """Rename released weights to the names in `ScanModel`, with the precision of `ScanModel` and the label order of `LABELS`.

    Args:
        state: The published state dict.
        settings: Settings of the `ScanModel`.
        published: Maps names in `ScanModel` to names in the release.
        labels: Labels of the released network's outputs, in their order.
        where: Path of the release, for errors.

    Raises:
        CheckpointError: If a weight is missing, unexpected or of another shape.
    """
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
            todo="The file is damaged, or of a network that is not supported. If it is damaged, download it again.",
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
        expected="all weights of the released network, and no others",
        todo="Download the file again; other networks of the same authors are not supported.",
    )


def _damaged(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "weights_damaged",
        where=str(path),
        got=got,
        expected=f"{CONFIG_FILE}, {CLASSIFIER_FILE} and {SEQUENCE_FILE}, as released",
        todo="Download the model again.",
    )
