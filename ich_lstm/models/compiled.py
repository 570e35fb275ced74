"""Names of weights, independent of whether a part of the model has been compiled.

`torch.compile` puts a module into another one, whose weights are called ``_orig_mod.`` and then by their names. What is saved
never has that part, and what is loaded is given it where the model at hand wants it.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

COMPILED = "_orig_mod."
"""What `torch.compile` puts before the names of weights."""


def plain_name(name: str) -> str:
    """The name of a weight in the model that was not compiled.

    Example:
        >>> plain_name("encoder._orig_mod.network.conv1.weight")
        'encoder.network.conv1.weight'
    """
    return name.replace(COMPILED, "")


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of the model that was not compiled."""
    return {plain_name(name): tensor for name, tensor in state.items()}


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that was given to `torch.compile`; any other as it is."""
    inner = getattr(module, COMPILED.removesuffix("."), module)
    return inner if isinstance(inner, nn.Module) else module


def keep_plain_names(module: nn.Module) -> None:
    """Let a module save its weights, and those of its parts, under plain names, and load them from either kind.

    Args:
        module: Parts of it may be compiled now or later.
    """
    module.register_state_dict_post_hook(_rename_saved)
    module.register_load_state_dict_pre_hook(_rename_to_load)


def _rename_saved(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    names = [name for name in state if name.startswith(prefix) and COMPILED in name[len(prefix) :]]
    for name in names:
        state[prefix + plain_name(name[len(prefix) :])] = state.pop(name)


def _rename_to_load(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """The names in a state dict become those of the module, which has the compiled part where it is compiled."""
    wanted = {plain_name(name): name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    for name in [name for name in state if name.startswith(prefix)]:
        plain = plain_name(name[len(prefix) :])
        there = prefix + wanted.get(plain, plain)
        if there != name:
            state[there] = state.pop(name)
