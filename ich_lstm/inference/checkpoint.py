"""Saving and loading of models as folders of safetensors and JSON, or Lightning checkpoints; no code in them is executed."""

import hashlib
import json
import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ich_lstm.errors import CheckpointError, ConfigError, IchLstmError
from ich_lstm.files.atomic_write import atomic_write, flush_file
from ich_lstm.inference.older_settings import with_parts
from ich_lstm.inference.pickles import pickle_in
from ich_lstm.labels import LABELS
from ich_lstm.models.compiled import plain_names, unwrapped
from ich_lstm.models.released.weights import RSNA_SLICE_MM, ChannelOrder, ReleasedModel, is_released_folder, read_released
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import make_folder

logger = printable_logger(__name__)

WEIGHTS_FILE = "model.safetensors"
ABOUT_FILE = "model.json"
ABOUT_KEY = "ich_lstm"
FORMAT = 1


class SavedModel(NamedTuple):
    """A model as it is stored.

    Args:
        about: The contents of ``model.json``: ``settings`` of `ScanClassifier`, the names of those settings that concern only
            training (``of_training``), ``preprocessing``, ``name`` and others.
        weights: The state dict of the `ScanModel`.
    """

    about: dict[str, Any]
    weights: dict[str, Tensor]

    @property
    def hash(self) -> str:
        """The hash of the weights, 12 hexadecimal digits; it does not depend on the file format."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            tensor = self.weights[name].detach().cpu().contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]


class WeightsHash:
    """Caches the hash of a network's weights until they change."""

    def __init__(self) -> None:
        self._known: tuple[tuple[tuple[int, int], ...], str] | None = None

    def of(self, model: nn.Module) -> str:
        """Compute the hash of the weights, see `SavedModel.hash`.

        Args:
            model: The network; it must be the same one in every call.
        """
        weights = unwrapped(model).state_dict()
        if any(tensor.is_inference() for tensor in weights.values()):  # tensors of inference_mode have no version counter
            return SavedModel({}, weights).hash
        # In-place updates increase a tensor's version. Hashing 100 MB for each scan would take as long as reading the scan.
        now = tuple((tensor.data_ptr(), tensor._version) for tensor in weights.values())
        if self._known is None or self._known[0] != now:
            self._known = now, SavedModel({}, weights).hash
        return self._known[1]


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Convert errors in the construction of a stored model to an error that names its file.

    Args:
        path: The file or folder of the model.

    Raises:
        CheckpointError: ``weights_do_not_fit`` if the construction fails.
    """
    try:
        yield
    except (AttributeError, TypeError, ValueError, RuntimeError, IchLstmError) as error:
        raise CheckpointError(
            "weights_do_not_fit",
            where=str(path),
            got=str(error).splitlines()[0],
            expected="weights that match the settings of the model",
            todo="Use another copy of the model, or the version of ich_lstm that wrote it.",
        ) from error


def write_model(folder: Path, model: SavedModel) -> None:
    """Write ``model.safetensors`` and ``model.json``, both or neither.

    Whenever the process is killed, the folder holds the old model, the new one, or weights without ``model.json``, which is not
    a model; never new weights with the old description.

    Raises:
        StorageError: ``disk_full``; an older model in the folder is unchanged.
    """
    make_folder(folder)
    about = {"format": FORMAT, "ich_lstm": version("ich_lstm"), "labels": list(LABELS), "hash": model.hash, **model.about}
    # The inner file is renamed first: the weights, and then their description.
    with atomic_write(folder / ABOUT_FILE) as new_about, atomic_write(folder / WEIGHTS_FILE) as new_weights:
        new_about.write_text(json.dumps(about, indent=2) + "\n")
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in model.weights.items()}, new_weights)
        for path in (new_about, new_weights):
            flush_file(path)  # here, so that a full disk shows before the old description is removed
        (folder / ABOUT_FILE).unlink(missing_ok=True)


def read_model(path: Path, channel_order: ChannelOrder | None = None) -> SavedModel:
    """Read a run's folder, its ``model`` folder, a Lightning checkpoint of this library, or released weights of other authors.

    Args:
        path: The file or folder of the model.
        channel_order: The order of the windows in the input channels of Nguyen et al.'s released weights; None for the order of
            their loader.

    Raises:
        CheckpointError: If the model is missing, damaged, or not a model that this library can read.
        ConfigError: If a channel order is given for any other model, which records its own windows.
    """
    folder = find_model_folder(path)
    if folder is not None:
        if channel_order is not None:
            raise _no_order(path, channel_order)
        return _read_folder(folder)
    if path.is_dir():
        if channel_order is not None:
            raise _no_order(path, channel_order)
        if is_released_folder(path):
            _refuse_pickles(path)
        if (released := read_released(path)) is not None:
            return _as_saved(released)
        raise _no_model(path, f"a folder without {ABOUT_FILE} or model/{ABOUT_FILE}")
    if not path.exists():
        raise CheckpointError("missing_checkpoint", where=str(path), got="no such file or folder", todo="Check the path.")
    try:
        saved = _read_lightning(path)
    except CheckpointError:
        if (released := read_released(path, channel_order)) is not None:
            return _as_saved(released)
        raise
    if channel_order is not None:
        raise _no_order(path, channel_order)
    return saved


def _no_order(path: Path, channel_order: ChannelOrder) -> ConfigError:
    return ConfigError(
        "no_channel_order",
        where=str(path),
        got=f"a channel order ({channel_order}) for a model that records its windows",
        expected="the released weights of Nguyen et al., whose order is uncertain (docs/released.md)",
        todo="Do not give a channel order.",
    )


def _as_saved(released: ReleasedModel) -> SavedModel:
    logger.info("%s: %s", released.name, released.source)
    about: dict[str, Any] = {
        "settings": released.settings,
        "of_training": None,
        "preprocessing": released.preprocessing,
        "slice_mm": RSNA_SLICE_MM,
        "is_synthetic": False,
        "positive_share": None,
        "training_data": None,
        "starting_weights": {"released": f"{released.name}: {released.source}"},
        "fits": [],
        "name": released.name,
    }
    return SavedModel(about, released.weights)


def find_model_folder(path: Path) -> Path | None:
    """Find the folder of ``model.json`` from a run's folder, a model's folder or a file in it; None if there is none."""
    if path.is_dir():
        return next((folder for folder in (path, path / "model") if (folder / ABOUT_FILE).is_file()), None)
    return path.parent if path.name in (WEIGHTS_FILE, ABOUT_FILE) and path.exists() else None


def _refuse_pickles(folder: Path) -> None:
    """Refuse a model's folder that contains a pickle, which this or another program could execute by loading it."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            found = pickle_in(path)
        except OSError as error:
            raise _no_model(folder, f"{path.relative_to(folder)}: {error.strerror or error}") from error
        if found is not None:
            raise CheckpointError(
                "pickle_in_model",
                where=str(folder),
                got=f"{path.relative_to(folder)}, {found}, which can execute code when it is loaded",
                expected=f"only {ABOUT_FILE}, {WEIGHTS_FILE} and text",
                todo="Use a model from a trusted source, or remove the file. It was not loaded.",
            )


def _read_folder(folder: Path) -> SavedModel:
    _refuse_pickles(folder)
    try:
        about = json.loads((folder / ABOUT_FILE).read_text())
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        raise _no_model(folder, f"{type(error).__name__}: {error}") from error
    saved = _checked(folder, about, weights)
    if about.get("hash") != saved.hash:
        raise CheckpointError(
            "weights_damaged",
            where=str(folder),
            got=f"weights with the hash {saved.hash}",
            expected=f"{about.get('hash')}, the hash in {ABOUT_FILE}",
            todo="Use another copy of the model.",
        )
    return saved._replace(weights=plain_names(saved.weights))


def _read_lightning(path: Path) -> SavedModel:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols; other files are refused below
            # weights_only reads tensors and plain values, and refuses everything that would execute code.
            content = torch.load(path, map_location="cpu", weights_only=True)
        about = content[ABOUT_KEY]
        state = plain_names(content["state_dict"])
        weights = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    except pickle.UnpicklingError as error:
        raise _no_model(path, "a file that is not a checkpoint of only tensors and plain values; it was not loaded") from error
    except Exception as error:  # for arbitrary bytes, the unpickler can raise any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no content"
        raise _no_model(path, f"{type(error).__name__}: {reason}") from error
    return _checked(path, about, weights)


def _checked(path: Path, about: Any, weights: dict[str, Tensor]) -> SavedModel:
    if not isinstance(about, dict) or not isinstance(about.get("settings"), dict) or "preprocessing" not in about:
        raise _no_model(path, f"an {ABOUT_FILE} without settings and preprocessing")
    if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise _no_model(path, "weights that are not tensors")
    if not isinstance(about.get("format", FORMAT), int) or about.get("format", FORMAT) > FORMAT:
        raise CheckpointError(
            "newer_format",
            where=str(path),
            got=f"format {about['format']}",
            expected=f"at most {FORMAT}",
            todo="Install a newer ich_lstm.",
        )
    if about.get("labels", list(LABELS)) != list(LABELS):
        raise CheckpointError("other_labels", where=str(path), got=str(about["labels"]), expected=", ".join(LABELS))
    names = (
        "settings",
        "of_training",
        "preprocessing",
        "slice_mm",
        "is_synthetic",
        "positive_share",
        "training_data",
        "starting_weights",
        "fits",
        "name",
    )
    about = with_parts(about)
    return SavedModel({name: about.get(name) for name in names}, weights)


def _no_model(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "not_a_model",
        where=str(path),
        got=got,
        expected=f"a run's folder, a folder with {ABOUT_FILE} and {WEIGHTS_FILE}, a .ckpt of this library, or released weights",
        todo="Name the folder written by ich-train.",
    )
