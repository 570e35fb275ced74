"""The encoder: the CNN that is shared by all slices of a scan."""

import difflib
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.lazy import without_module
from ich_lstm.models.execution.depthwise import depthwise_gradients_in_float32
from ich_lstm.models.execution.recompute import batch_norms, hold_in_backward
from ich_lstm.models.stored.tensors import UNREADABLE, read_safetensors, read_torch
from ich_lstm.settings import require, require_choice, setting

# timm imports wandb if it is installed, for a function that is not used here. That import would delay every prediction.
with without_module("wandb"):
    import timm
    from timm.layers import convert_sync_batchnorm
    from timm.models import group_parameters

BatchNorm = Literal["batch", "synchronized", "frozen"]
HUB_SECONDS = 10
"""Timeout in seconds for asking the Hugging Face hub whether it has a backbone's weights."""

GlobalPool = Literal["avg", "max", "avgmax", "catavgmax", "late"]


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The CNN that all slices share.

    Args:
        backbone: Name of any timm model.
        pretrained: Start from timm's pretrained weights, which are downloaded on first use. If the input does not have three
            channels, the weights of the first layer are repeated, and scaled by 3 / channels.
        pretrained_file: Start from this file of timm's weights instead, for a machine without internet: ``.safetensors``, or a
            state dict that `torch.save` wrote.
        global_pool: Pooling of the last feature map: ``avg``, ``max``, ``avgmax`` (their mean) or ``catavgmax`` (both,
            concatenated). ``late`` applies the backbone's head at every place of the last map and then takes the mean. Null for
            the backbone's default.
        adjacent_slices: How many neighbouring slices on either side are stacked with each slice as further channels, at least 0.
            A neighbour beyond the end of the scan looks like the lowest HU in every window.
        batch_norm: Statistics of batch-norm in training. ``batch``: those of the batch, with running statistics kept for
            evaluation; ``synchronized``: those of the batches of all processes (GPUs only); ``frozen``: the running statistics,
            which do not change.
        slices_per_chunk: Train in chunks of at most this many slices, at least 1, whose activations are computed again in the
            backward pass. Memory then does not grow with the batch, and gradients are exact, but batch statistics are those of a
            chunk. Null for no chunks.
        checkpoint_blocks: Keep only the activations between timm's blocks for the backward pass, and compute the others again.
            Memory still grows with the batch, but batch statistics are those of the whole batch.
        compiled: Compile the network with `torch.compile`.
        dropout: Dropout rate on the features, in [0, 1).
        classifier: Whether the encoder has its own classifier, which gives logits of each slice from that slice alone.

    Raises:
        ConfigError: If a setting is out of range, or two settings contradict each other.
    """

    backbone: str = "resnext50_32x4d"
    pretrained: bool = setting(True, stored=False, loaded=False)
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
        require_choice("unknown_batch_norm", "encoder.batch_norm", self.batch_norm, BatchNorm)
        wrong = {"encoder.adjacent_slices": self.adjacent_slices} if self.adjacent_slices < 0 else {}
        require("neighbours_out_of_range", "at least 0", wrong)
        chunk = self.slices_per_chunk
        if chunk is not None and (not isinstance(chunk, int) or chunk < 1):
            require("head_out_of_range", "a whole number, at least 1, or null", {"encoder.slices_per_chunk": chunk})
        require("head_out_of_range", "in [0, 1)", {} if 0 <= self.dropout < 1 else {"encoder.dropout": self.dropout})
        if self.batch_norm == "synchronized" and self.slices_per_chunk is not None:
            # Processes have different numbers of chunks, so synchronizing their statistics would deadlock.
            raise ConfigError(
                "chunks_and_synchronized_statistics",
                where="encoder.batch_norm, encoder.slices_per_chunk",
                got="synchronized statistics, and chunks",
                expected="one of them",
                todo="Set checkpoint_blocks=true in place of slices_per_chunk, or batch_norm=frozen.",
            )


class SliceEncoder(nn.Module):
    """A timm backbone without its classifier: it turns each slice into one feature vector.

    Args:
        settings: Settings of the encoder. `ScanModel` applies ``adjacent_slices``, ``slices_per_chunk``, ``dropout`` and
            ``classifier``; this class applies the others.
        in_channels: Number of input channels: the number of windows times the number of slices that are stacked.

    Raises:
        ConfigError: If timm does not know the backbone, its weights cannot be loaded, or it does not support a setting.
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
        """Origin of the initial weights: ``source`` (``random``, ``timm`` or ``file``) and the names of model and file, without
        folders."""
        self.network = self.network.to(memory_format=torch.channels_last)
        # Some backbones (MobileNet) have one more layer between pooling and classifier, which changes the number of features.
        self.out_features = int(getattr(self.network, "head_hidden_size", None) or self.network.num_features)  # type: ignore[arg-type]
        if settings.batch_norm == "synchronized":
            # timm's batch-norm layers include their activation function, which torch's own conversion would lose.
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
                    todo="Set slices_per_chunk instead, which works with every backbone.",
                ) from error
            hold_in_backward(self.network)
        # A compiled network has kernels of its own; block checkpointing computes activations again outside of `forward`.
        self._has_plain_forward = not (settings.compiled or settings.checkpoint_blocks)
        if settings.compiled:
            self.network.compile()

    @property
    def is_frozen(self) -> bool:
        """Whether none of the encoder's weights is trained."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    def unfreeze_last(self, groups: int | None) -> None:
        """Train the last layer groups, and freeze the others.

        Args:
            groups: How many of timm's layer groups (stem, stages) are trained, counted from the last. None trains all layers, and
                0 none; a number larger than the number of groups trains all.

        Raises:
            ConfigError: If ``groups`` is at least 1, and timm does not divide the backbone into layer groups.
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
        """Set training or evaluation mode. Frozen layers stay in evaluation mode, without dropout and with fixed statistics.

        Args:
            mode: True for training mode, False for evaluation mode.
        """
        super().train(mode and not self.is_frozen)
        for layer in batch_norms(self):
            if self.batch_norm == "frozen" or (layer.weight is not None and not layer.weight.requires_grad):
                layer.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Encode each slice by itself.

        Args:
            x: Windowed slices ``(n, c, h, w)``.

        Returns:
            Features ``(n, d)``, in the precision of the weights.
        """
        x = x.to(next(self.network.parameters()).dtype)  # windows give at least float32; the weights may have lower precision
        with depthwise_gradients_in_float32(x) if self._has_plain_forward else nullcontext():
            if not self.pools_late:
                return self.network(x)
            places = self.network.forward_head(self.network.forward_features(x), pre_logits=True)  # type: ignore[operator]
        if places.ndim != 4:
            raise ConfigError(
                "pooling_not_supported",
                where="backbone, global_pool=late",
                got=f"a head whose output has {places.ndim - 1} axes per slice",
                expected="a head whose output is a feature map with 3 axes per slice (d, h, w)",
                todo="Leave global_pool out, or choose another backbone.",
            )
        return places.mean(dim=(2, 3))  # (n, d, h', w') to (n, d)


def _create(settings: Encoder, in_channels: int) -> nn.Module:
    """Create timm's network, and turn its errors into errors that say which setting to change."""
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
            expected="a pooling that this backbone supports",
            todo="Leave global_pool out, or choose another backbone.",
        ) from error
    except (OSError, RuntimeError, KeyError) as error:
        if not is_pretrained:
            raise
        raise _no_weights(backbone, from_file, f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    if from_file is not None:
        del network.pretrained_cfg["state_dict"]  # type: ignore[union-attr, operator]  # it is a second copy of all weights
    return network


def _source_of(network: nn.Module, settings: Encoder) -> dict[str, str]:
    """Describe where the initial weights come from, without any folder."""
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    if settings.pretrained_file is not None:
        return {"source": "file", "name": name, "file": Path(settings.pretrained_file).name}
    if not settings.pretrained:
        return {"source": "random"}
    known = {key: str(config[key]) for key in ("hf_hub_id", "url", "license") if config.get(key)}
    return {"source": "timm", "name": name, **known}


def check_pretrained(settings: Encoder) -> None:
    """Check within seconds that a backbone's pretrained weights are available, without downloading them.

    If the weights are not in the cache, this asks the Hugging Face hub once whether it has the file. timm's own download would
    retry for minutes on a machine without internet.

    Args:
        settings: Settings of the encoder. An unknown backbone passes this check; `SliceEncoder` refuses it.

    Raises:
        ConfigError: ``no_pretrained_weights``, if the file is missing or the hub cannot be reached.
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
        return  # the hub can be reached; timm will find out whether it has the weights under another name
    except Exception as error:  # the type depends on the HTTP library, which changes between versions of huggingface_hub
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
    """Say how to get the weights onto a machine without internet."""
    config = timm.get_pretrained_cfg(backbone)
    source = f"huggingface.co/{config.hf_hub_id}" if config is not None and config.hf_hub_id else "timm's page of the model"
    return (
        f"Train from scratch with pretrained=false; or download model.safetensors from {source} on a machine with internet, "
        "copy it here, and set pretrained_file to its path."
    )


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Read a state dict from a file, without executing any code in it."""
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        content = read_torch(path)
    except UNREADABLE as error:
        raise ConfigError(
            "no_pretrained_weights",
            where=f"pretrained_file {path}",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no content'}",
            expected="a .safetensors file, or a state dict that torch.save wrote",
            todo="Check the path, or download the file again.",
        ) from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ConfigError(
            "no_pretrained_weights",
            where=f"pretrained_file {path}",
            got="a file without a state dict",
            expected="a mapping from names to tensors",
            todo="Download the file again.",
        )
    return content
