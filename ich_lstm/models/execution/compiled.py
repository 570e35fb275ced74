"""Names of weights that do not depend on whether a part of the model has been compiled.

`torch.compile` wraps a module in another one, which adds ``_orig_mod.`` to the names of its weights. Saved weights never have
this prefix; when weights are loaded, it is added where the model has a compiled part.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

COMPILED = "_orig_mod."
"""Prefix that `torch.compile` adds to the names of weights."""


def plain_name(name: str) -> str:
    """The name of a weight without the prefix of `torch.compile`.

    Example:
        >>> plain_name("encoder._orig_mod.network.conv1.weight")
        'encoder.network.conv1.weight'
    """
    return name.replace(COMPILED, "")


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of a state dict to names without the prefix of `torch.compile`."""
    return {plain_name(name): tensor for name, tensor in state.items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The original module of a compiled one; a module that is not compiled is returned unchanged."""
    inner = getattr(module, COMPILED.removesuffix("."), module)
    return inner if isinstance(inner, nn.Module) else module


def keep_plain_names(module: nn.Module) -> None:
    """Make a module save its weights under plain names, and load weights with or without the prefix of `torch.compile`.

    Args:
        module: The module; its parts may be compiled now or later.
    """
    module.register_state_dict_post_hook(_rename_saved)
    module.register_load_state_dict_pre_hook(_rename_to_load)


def _rename_saved(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Remove the prefix of `torch.compile` from the names in a state dict."""
    names = [name for name in state if name.startswith(prefix) and COMPILED in name[len(prefix) :]]
    for name in names:
        state[prefix + plain_name(name[len(prefix) :])] = state.pop(name)


def _rename_to_load(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the entries of a state dict to the names of the module, with the prefix where a part is compiled."""
    wanted = {plain_name(name): name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    for name in [name for name in state if name.startswith(prefix)]:
        plain = plain_name(name[len(prefix) :])
        there = prefix + wanted.get(plain, plain)
        if there != name:
            state[there] = state.pop(name)
