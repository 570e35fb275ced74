"""The encoder: the CNN that is shared by all slices of a scan."""

import difflib
import os
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.models.recompute import batch_norms, hold_in_backward
from ich_lstm.settings import require, require_choice, setting


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let an import of a module fail as if it were not installed, unless it was imported before."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # Python's own way to say so
    try:
        yield
    finally:
        del sys.modules[module]


# timm imports wandb if there is one, for a function that is not used here; a prediction would wait for it.
with _without("wandb"):
    import timm
    from timm.layers import convert_sync_batchnorm
    from timm.models import group_parameters

BatchNorm = Literal["batch", "synchronized", "frozen"]
HUB_SECONDS = 10
"""How long the Hugging Face hub may take to say whether it has a backbone's weights."""

GlobalPool = Literal["avg", "max", "avgmax", "catavgmax", "late"]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The CNN that all slices share.

    Args:
        backbone: Any model name of timm.
        pretrained: Start from timm's pretrained weights, which are downloaded on first use. A first layer of other than three
            channels gets their weights repeated, and scaled by 3 / channels.
        pretrained_file: Start from this file of timm's weights instead, on a machine without internet: ``.safetensors``, or a
            state dict that `torch.save` wrote.
        global_pool: Pooling of the last map: ``avg``, ``max``, ``avgmax`` (their mean) or ``catavgmax`` (both, side by side);
            ``late``: the backbone's head on every place of the last map, then the mean; null is the backbone's own.
        adjacent_slices: So many slices on either side are shown beside each slice, as further channels; beyond the ends of a scan
            they are what a window shows of the lowest HU.
        batch_norm: ``batch``: normalize by the batch in training, and keep running statistics; ``synchronized``: by the batches
            of all processes (on GPUs); ``frozen``: always by the running statistics, which stay as they are.
        slices_per_chunk: Train in chunks of at most so many slices, whose activations are computed again in the backward pass:
            memory does not grow with the batch, and gradients are exact. Batch statistics are those of a chunk.
        checkpoint_blocks: Keep only what lies between timm's blocks for the backward pass, and compute the rest again: memory
            grows with the batch, but its statistics are those of the whole batch.
        compiled: Compile the network with `torch.compile`.
        dropout: Dropout on the features.
        classifier: Whether the encoder has logits of its own, seeing each slice alone.

    Raises:
        ConfigError: If a setting is out of range.
    """

    backbone: str = "resnext50_32x4d"
    pretrained: bool = True
    pretrained_file: Path | None = setting(None, stored=False)
    global_pool: GlobalPool | None = None
    adjacent_slices: int = 0
    batch_norm: BatchNorm = setting("batch", stage=True, stored=False)
    slices_per_chunk: int | None = setting(None, stage=True, stored=False)
    checkpoint_blocks: bool = setting(False, free=True, stored=False)
    compiled: bool = setting(False, free=True, stored=False)
    dropout: float = setting(0.0, free=True)
    classifier: bool = True

    def __post_init__(self) -> None:
        require_choice("unknown_batch_norm", "batch_norm", self.batch_norm, BatchNorm)
        require(
            "neighbours_out_of_range", "at least 0", {"adjacent_slices": self.adjacent_slices} if self.adjacent_slices < 0 else {}
        )
        chunk = self.slices_per_chunk
        if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
            require("head_out_of_range", "a whole number, at least 1, or null", {"slices_per_chunk": chunk})
        require("head_out_of_range", "in [0, 1)", {} if 0 <= self.dropout < 1 else {"encoder.dropout": self.dropout})
        if self.batch_norm == "synchronized" and self.slices_per_chunk is not None:
            # Processes have different numbers of chunks, and would wait for one another for ever.
            raise ConfigError(
                "chunks_and_synchronized_statistics",
                where="batch_norm, slices_per_chunk",
                got="synchronized statistics, and chunks",
                expected="one of them",
                todo="Set checkpoint_blocks=true in place of slices_per_chunk, or batch_norm=frozen.",
            )


class SliceEncoder(nn.Module):
    """A timm backbone without its classifier: slices in, one feature vector each out.

    Args:
        settings: Its settings; all but ``adjacent_slices``, ``slices_per_chunk``, ``dropout`` and ``classifier``, which the whole
            network sees to.
        in_channels: Channels of a slice: windows, times the slices that are shown together.

    Raises:
        ConfigError: If timm does not know the name, the weights cannot be had, or the backbone cannot do what is asked.
    """

    def __init__(self, settings: Encoder, *, in_channels: int) -> None:
        super().__init__()
        backbone = settings.backbone
        if not timm.is_model(backbone):
            near = difflib.get_close_matches(backbone, timm.list_models(), n=3)
            raise ConfigError(
                "unknown_backbone",
                where="backbone",
                got=repr(backbone),
                expected="a model of timm",
                todo=f"Did you mean {' or '.join(near)}?" if near else "timm.list_models() lists them.",
            )
        self.batch_norm = settings.batch_norm
        self.pools_late = settings.global_pool == "late"
        self.network = _create(settings, in_channels)
        self.starting_weights = _source_of(self.network, settings)
        """Where the weights come from, without any folder: ``source`` (``random``, ``timm`` or ``file``), and what names them."""
        self.network = self.network.to(memory_format=torch.channels_last)
        # Some backbones (MobileNet) widen the features once more between pooling and classifier.
        self.out_features = int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)  # type: ignore[arg-type]
        if settings.batch_norm == "synchronized":
            # timm's, for torch's own would lose the activations that timm's batch-norm layers hold.
            self.network = convert_sync_batchnorm(self.network)
        if settings.checkpoint_blocks:
            try:
                self.network.set_grad_checkpointing(True)  # type: ignore[operator]
            except (AssertionError, AttributeError) as error:
                raise ConfigError(
                    "no_block_checkpointing",
                    where=f"backbone {backbone}",
                    got="checkpoint_blocks=True",
                    expected="a backbone that timm can checkpoint by blocks",
                    todo="Set slices_per_chunk instead, which every backbone can.",
                ) from error
            hold_in_backward(self.network)
        if settings.compiled:
            self.network.compile()

    @property
    def is_frozen(self) -> bool:
        """Whether no weight of it is trained."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def unfreeze_last(self, groups: int | None) -> None:
        """Choose which layers are trained, from the next call of `train` on.

        Args:
            groups: The last so many of timm's layer groups (stem, stages); None for all, 0 for none. More than there are is all.

        Raises:
            ConfigError: If some groups are wanted of a backbone that timm does not divide into groups.
        """
        if groups is None or groups == 0:
            self.requires_grad_(groups is None)
        else:
            members = list(self._layer_groups().values())
            trained = {name for names in members[-groups:] for name in names}
            for name, parameter in self.network.named_parameters():
                parameter.requires_grad_(name in trained)
        self.train(self.training)

    def _layer_groups(self) -> dict[Any, list[str]]:
        try:
            matcher = self.network.group_matcher(coarse=True)  # type: ignore[operator]
        except AttributeError as error:
            raise ConfigError(
                "no_layer_groups",
                where="encoder_groups",
                got=f"a number of layer groups, and {type(self.network).__name__}",
                expected="a backbone that timm divides into layer groups",
                todo="Leave encoder_groups out, or freeze the whole encoder (train=head).",
            ) from error
        groups = group_parameters(self.network, matcher)
        return {key: groups[key] for key in sorted(groups)}

    def train(self, mode: bool = True) -> "SliceEncoder":
        """Training mode but for what is frozen: there neither statistics nor dropout may move."""
        super().train(mode and not self.is_frozen)
        for layer in batch_norms(self):
            if self.batch_norm == "frozen" or (layer.weight is not None and not layer.weight.requires_grad):
                layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Encode slices one by one.

        Args:
            x: Windowed slices ``(n, c, h, w)``.

        Returns:
            Features ``(n, d)``, in the precision of the weights.
        """
        x = x.to(next(self.network.parameters()).dtype)  # the windows are computed in at least float32, and weights may be less
        if not self.pools_late:
            return self.network(x)
        places = self.network.forward_head(self.network.forward_features(x), pre_logits=True)  # type: ignore[operator]
        if places.ndim != 4:
            raise ConfigError(
                "pooling_not_supported",
                where="backbone, global_pool=late",
                got=f"a head that gives {places.ndim - 1} axes per slice",
                expected="a head that gives a map of features",
                todo="Leave global_pool out, or take another backbone.",
            )
        return places.mean(dim=(2, 3))  # (n, d, h', w') to (n, d)


def _create(settings: Encoder, in_channels: int) -> nn.Module:
    backbone, from_file = settings.backbone, settings.pretrained_file
    options: dict[str, Any] = {}
    if settings.global_pool is not None:
        options["global_pool"] = "" if settings.global_pool == "late" else settings.global_pool
    if from_file is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": _read_weights(Path(from_file))}
    is_pretrained = settings.pretrained or from_file is not None
    try:
        network = timm.create_model(backbone, pretrained=is_pretrained, num_classes=0, in_chans=in_channels, **options)
    except (AssertionError, TypeError) as error:
        if settings.global_pool is None:
            raise
        raise ConfigError(
            "pooling_not_supported",
            where=f"backbone {backbone}",
            got=f"global_pool={settings.global_pool!r}",
            expected="a pooling that this backbone has",
            todo="Leave global_pool out, or take another backbone.",
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        if not is_pretrained:
            raise
        raise _no_weights(backbone, from_file, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    if from_file is not None:
        del network.pretrained_cfg["state_dict"]  # type: ignore[union-attr, operator]  # a second copy of all weights
    return network


def _source_of(network: nn.Module, settings: Encoder) -> dict[str, str]:
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    if settings.pretrained_file is not None:
        return {"source": "file", "name": name, "file": Path(settings.pretrained_file).name}
    if not settings.pretrained:
        return {"source": "random"}
    known = {key: str(config[key]) for key in ("hf_hub_id", "url", "license") if config.get(key)}
    return {"source": "timm", "name": name, **known}


def check_pretrained(settings: Encoder) -> None:
    """See that a backbone's pretrained weights can be had, in seconds and without downloading them.

    What lies in the cache is not asked for. Otherwise the Hugging Face hub is asked once whether it has the file: timm's own
    way to the weights would try again and again for minutes on a machine without internet.

    Args:
        settings: Of the encoder; an unknown backbone is left to `SliceEncoder` to refuse.

    Raises:
        ConfigError: ``no_pretrained_weights``.
    """
    backbone = settings.backbone
    if settings.pretrained_file is not None:
        if not Path(settings.pretrained_file).is_file():
            raise _no_weights(backbone, settings.pretrained_file, "no such file")
        return
    if not settings.pretrained:
        return
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.hf_hub_id or os.environ.get("TIMM_USE_OLD_CACHE"):
        return
    names = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
        return
    try:
        get_hf_file_metadata(hf_hub_url(config.hf_hub_id, names[0], endpoint=constants.ENDPOINT), timeout=HUB_SECONDS)
    except HfHubHTTPError:
        return  # the hub can be reached; whether it has the weights under another name is timm's to find out
    except Exception as error:  # of the hub's HTTP library, which is another one from version to version
        reason = str(error).strip().splitlines()
        raise _no_weights(backbone, None, f"{type(error).__name__}: {reason[0] if reason else 'no answer'}") from error


def _no_weights(backbone: str, pretrained_file: Path | None, got: str) -> ConfigError:
    is_download = pretrained_file is None
    return ConfigError(
        "no_pretrained_weights",
        where=f"backbone {backbone}" if is_download else f"pretrained_file {pretrained_file}",
        got=got,
        expected="pretrained weights of timm, downloaded or in its cache" if is_download else f"weights of timm's {backbone}",
        todo=_how_to_get(backbone),
    )


def _how_to_get(backbone: str) -> str:
    """What to do on a machine without internet."""
    config = timm.get_pretrained_cfg(backbone)
    source = f"huggingface.co/{config.hf_hub_id}" if config is not None and config.hf_hub_id else "timm's page of the model"
    return (
        f"Train from scratch with pretrained=false; or, on a machine with internet, save model.safetensors of {source}, "
        "and name its copy with pretrained_file."
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, without executing anything in it."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise ConfigError(
            "no_pretrained_weights",
            where=f"pretrained_file {path}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no content'}",
            expected="a .safetensors file, or a state dict that torch.save wrote",
            todo="Check the path, or take another copy.",
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(
            "no_pretrained_weights",
            where=f"pretrained_file {path}",
            got="a file without a state dict",
            expected="names and tensors",
            todo="Take another copy.",
        )
    return content
