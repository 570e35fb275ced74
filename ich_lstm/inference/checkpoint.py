"""Saving and loading of models as folders of safetensors and JSON, or Lightning checkpoints; no code in them is executed."""

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ich_lstm.errors import CheckpointError, ConfigError, IchLstmError
from ich_lstm.files.atomic_write import atomic_write, flush_file
from ich_lstm.files.untrusted import read_json, shown
from ich_lstm.formatting import first_of
from ich_lstm.inference.older_settings import with_parts
from ich_lstm.inference.pickles import pickle_in
from ich_lstm.inference.stored.about import CHECKSUM, ENTRIES, FORMAT, checked_about, checksum
from ich_lstm.labels import LABELS
from ich_lstm.models.execution.compiled import plain_name, plain_names, unwrapped
from ich_lstm.models.released.weights import RSNA_SLICE_MM, ChannelOrder, ReleasedModel, is_released_folder, read_released
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.models.stored.tensors import (
    UNREADABLE,
    StoredTensors,
    TensorKind,
    TooManyTensors,
    at_most,
    open_safetensors,
    read_torch,
    stored_in,
)
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import make_folder
from ich_lstm.settings import from_stored

logger = printable_logger(__name__)

WEIGHTS_FILE = "model.safetensors"
ABOUT_FILE = "model.json"
ABOUT_KEY = "ich_lstm"

MOST_BESIDE = 64 * 2**20
"""Largest file in a model's folder that does not hold weights, in bytes."""

SPARE_TENSORS = 1000
"""While a network is built, it may register this many tensors more than twice those in its file: some modules replace others."""

FIRST_FEW = 5
"""An error lists at most this many tensors."""


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
    except CheckpointError:
        raise
    except (AttributeError, TypeError, ValueError, OverflowError, RuntimeError, IchLstmError) as error:
        raise _do_not_fit(path, shown((str(error).splitlines() or [type(error).__name__])[0])) from error


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
        new_about.write_text(json.dumps(about | {CHECKSUM: checksum(about)}, indent=2) + "\n")
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
    saved = _read(path, channel_order)
    _refuse_not_finite(path, saved.weights)
    return saved


def _read(path: Path, channel_order: ChannelOrder | None) -> SavedModel:
    folder = find_model_folder(path)
    if folder is not None:
        if channel_order is not None:
            raise _no_order(path, channel_order)
        return _read_folder(folder)
    if path.is_dir():
        if channel_order is not None:
            raise _no_order(path, channel_order)
        if is_released_folder(path):
            _refuse_foreign(path)
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


def network_settings(about: Mapping[str, Any]) -> ModelSettings:
    """Select the stored settings that define the network, without those of its training.

    Args:
        about: The metadata of a stored model.

    Raises:
        ConfigError: If a setting belongs neither to the network nor to its training, as in a model of a newer version.
    """
    names = {each.name for each in fields(ModelSettings)}
    stored, of_training = about["settings"], about["of_training"]
    if of_training is None:  # models of older versions do not list the settings of training
        of_training = stored.keys() - names
    return from_stored(
        ModelSettings(), {name: value for name, value in stored.items() if name in names or name not in of_training}
    )


def _refuse_foreign(folder: Path) -> None:
    """Refuse a model's folder with a file that this or another program should not open.

    These are pickles, which can execute code; links to files elsewhere; named pipes and devices; and files that are too large
    to be text.
    """
    for path in sorted(folder.rglob("*")):
        name = shown(str(path.relative_to(folder)))
        try:
            if path.is_dir() and not path.is_symlink():
                continue
            if path.is_symlink() and not _is_inside(path, folder):
                raise _foreign("link_in_model", folder, f"{name}, a link to a file outside of the folder")
            if not path.is_file():
                raise _foreign("not_a_file_in_model", folder, f"{name}, which is not a regular file")
            if path.suffix != Path(WEIGHTS_FILE).suffix and (size := path.stat().st_size) > MOST_BESIDE:
                raise _foreign("large_file_in_model", folder, f"{name}, of {size:,} bytes")
            found = pickle_in(path)
        except OSError as error:
            raise _no_model(folder, f"{name}: {error.strerror or error}") from error
        if found is not None:
            raise _foreign("pickle_in_model", folder, f"{name}, {found}, which can execute code when it is loaded")


def _is_inside(link: Path, folder: Path) -> bool:
    """Whether a link leads to a file of the same model. In the cache of the Hugging Face Hub, files are links into ``blobs``."""
    target, home = link.resolve(), folder.resolve()
    blobs = home.parent.parent / "blobs"
    return target.is_relative_to(home) or (home.parent.name == "snapshots" and target.is_relative_to(blobs))


def _foreign(code: str, folder: Path, got: str) -> CheckpointError:
    return CheckpointError(
        code,
        where=str(folder),
        got=got,
        expected=f"only {ABOUT_FILE}, {WEIGHTS_FILE} and text",
        todo="Use a model from a trusted source, or remove the file. It was not loaded.",
    )


def _read_folder(folder: Path) -> SavedModel:
    _refuse_foreign(folder)
    try:
        about = read_json(folder / ABOUT_FILE)
        stored = open_safetensors(folder / WEIGHTS_FILE)
    except UNREADABLE as error:
        raise _no_model(folder, f"{type(error).__name__}: {shown(str(error))}") from error
    expected = checked_about(about, str(folder / ABOUT_FILE)).get("hash")
    saved = _fitted(folder, about, stored)
    if expected != saved.hash:
        raise CheckpointError(
            "weights_damaged",
            where=str(folder),
            got=f"weights with the hash {saved.hash}",
            expected=f"{expected}, the hash in {ABOUT_FILE}",
            todo="Use another copy of the model.",
        )
    return saved._replace(weights=plain_names(saved.weights))


def _read_lightning(path: Path) -> SavedModel:
    try:
        content = read_torch(path)
        about = content[ABOUT_KEY]
        state = plain_names(content["state_dict"])
        stored = stored_in({name.removeprefix("model."): tensor for name, tensor in state.items()}, path)
    except pickle.UnpicklingError as error:
        raise _no_model(path, "a file that is not a checkpoint of only tensors and plain values; it was not loaded") from error
    except Exception as error:  # for arbitrary bytes, the unpickler can raise any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no content"
        raise _no_model(path, f"{type(error).__name__}: {shown(reason)}") from error
    return _fitted(path, checked_about(about, str(path)), stored)


def _fitted(path: Path, about: dict[str, Any], stored: StoredTensors) -> SavedModel:
    """Read the weights after their names, shapes and types have been compared with the network that the metadata describes."""
    about = with_parts(about)
    about = {name: about.get(name) for name in ENTRIES}
    with fitting(path):
        settings = network_settings(about)
        try:
            # On the meta device, a network needs no memory, however large its settings say that it is.
            with torch.device("meta"), at_most(2 * len(stored.kinds) + SPARE_TENSORS):
                network = ScanModel(settings).state_dict()
        except TooManyTensors as error:
            raise _do_not_fit(path, f"{len(stored.kinds):,} tensors, and settings of a network with many more") from error
    wanted = {name: TensorKind(tuple(tensor.shape), tensor.dtype) for name, tensor in network.items()}
    found = {plain_name(name): kind for name, kind in stored.kinds.items()}
    wrong = [f"{shown(name)} {kind}" for name, kind in found.items() if name not in wanted or kind.takes != wanted[name].takes]
    wrong += [f"no {name} {kind}" for name, kind in wanted.items() if name not in found]
    if wrong:
        raise _do_not_fit(path, first_of(wrong, FIRST_FEW))
    try:
        weights = stored.read()
    except UNREADABLE as error:
        raise _no_model(path, f"{type(error).__name__}: {shown(str(error))}") from error
    return SavedModel(about, weights)


def _refuse_not_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    wrong = [name for name, tensor in weights.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if wrong:
        raise CheckpointError(
            "weights_not_finite",
            where=str(path),
            got=f"NaN or infinity in {first_of(wrong, FIRST_FEW)}",
            expected="finite weights",
            todo="The training of this model failed, or the file is damaged. Use an earlier checkpoint, or another copy.",
        )


def _do_not_fit(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "weights_do_not_fit",
        where=str(path),
        got=got,
        expected="weights that match the settings of the model",
        todo="Use another copy of the model, or the version of ich_lstm that wrote it.",
    )


def _no_model(path: Path, got: str) -> CheckpointError:
    return CheckpointError(
        "not_a_model",
        where=str(path),
        got=got,
        expected=f"a run's folder, a folder with {ABOUT_FILE} and {WEIGHTS_FILE}, a .ckpt of this library, or released weights",
        todo="Name the folder written by ich-train.",
    )
