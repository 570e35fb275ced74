"""Tensors in files that a stranger may have written: names, shapes and types first, values only when they are wanted.

No code in the files is executed, and what is allocated is bounded by the size of the file, not by the numbers in it.
"""

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_buffer_registration_hook, register_module_parameter_registration_hook

from ich_lstm.files.untrusted import open_regular

MOST_BYTES = 16 * 2**30
"""Largest file of weights that is read. The largest of timm's backbones have 10 GB."""

MOST_HEADER = 4 * 2**20
"""Largest header of safetensors that is read, in bytes; a tensor needs about 100, and a network has at most some thousands."""

MOST_PICKLED = 8 * 2**20
"""Largest list of the tensors and plain values in a checkpoint of torch, in bytes, without the values of the tensors."""

MOST_OPCODES = 1_000_000
"""Most opcodes of a pickle in a checkpoint of torch before version 1.6, which does not say how large its pickles are."""

LEGACY_PICKLES = 5
"""Number of pickles in such a checkpoint: a magic number, a version, the system, the content, and the keys of the tensors."""

LEGACY_START = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
"""The first bytes of such a checkpoint: its magic number."""

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of tensors in safetensors that weights may have."""

UNREADABLE = (OSError, ValueError, RuntimeError, EOFError, KeyError, SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile)
"""Exceptions of the readers in this module."""


class TensorKind(NamedTuple):
    """Shape and type of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def takes(self) -> "TensorKind":
        """The kind with the widest type from which its values can be cast: any floating-point type is as good as another."""
        return self._replace(dtype=torch.float64) if self.dtype.is_floating_point else self

    def __str__(self) -> str:
        return f"{tuple(self.shape)} {str(self.dtype).removeprefix('torch.')}"


class StoredTensors(NamedTuple):
    """The tensors of a file, without their values.

    Args:
        kinds: Shape and type of each tensor, by name.
        read: Reads the values.
    """

    kinds: dict[str, TensorKind]
    read: Callable[[], dict[str, Tensor]]


def open_safetensors(path: Path) -> StoredTensors:
    """Read the header of a safetensors file.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it is not a regular file, or its header is too large or lists another type of tensor.
        SafetensorError: If it is damaged.
    """
    with open_regular(path, MOST_BYTES) as file:
        length = int.from_bytes(file.read(8), "little")
    if length > MOST_HEADER:
        raise ValueError(f"a header of {length:,} bytes, expected at most {MOST_HEADER:,}")
    kinds = {}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is not a mapping)
            part = file.get_slice(name)
            if part.get_dtype() not in TYPES:
                raise ValueError(f"a tensor of the type {part.get_dtype()}, expected one of {', '.join(TYPES)}")
            kinds[name] = TensorKind(tuple(part.get_shape()), TYPES[part.get_dtype()])

    def read() -> dict[str, Tensor]:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in kinds}

    return StoredTensors(kinds, read)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file; errors are those of `open_safetensors`."""
    return open_safetensors(path).read()


def read_torch(path: Path) -> Any:
    """Read a file of `torch.save` that holds only tensors and plain values. Tensors are read from disk when they are used.

    Args:
        path: The file, of any version of torch.

    Returns:
        The content. Its tensors may claim more elements than they have; `stored_in` checks them.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a regular file, or too large.
        pickle.UnpicklingError: If it contains anything but tensors and plain values.
        Exception: Arbitrary bytes can make the unpickler raise any exception.
    """
    with open_regular(path, MOST_BYTES) as file:
        is_legacy = file.read(len(LEGACY_START)) == LEGACY_START
        file.seek(0)
        if is_legacy:
            _check_legacy(file)
        else:
            _check_zip(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about the pickle protocol of some files
        # With mmap, torch takes tensors out of the file itself. Otherwise it trusts the sizes in the pickle, and reads beyond the
        # memory of a tensor that is shorter.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=not is_legacy)


def _check_zip(file: Any) -> None:
    """Check that the members of a zip are as large as they say: stored, without overlap, and with a pickle of bounded size."""
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("compressed tensors, expected a file that torch.save wrote")
    if sum(member.file_size for member in members) > size:
        raise ValueError("members that are larger than the file, expected a file that torch.save wrote")
    pickles = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if pickles > MOST_PICKLED:
        raise ValueError(f"{pickles:,} bytes beside the tensors, expected at most {MOST_PICKLED:,}")


def _check_legacy(file: Any) -> None:
    count = 0
    for _ in range(LEGACY_PICKLES):
        for _ in pickletools.genops(file):
            count += 1
            if count > MOST_OPCODES or file.tell() > MOST_PICKLED:
                raise ValueError("too many values beside the tensors")


def stored_in(tensors: Mapping[str, Any], path: Path) -> StoredTensors:
    """Check tensors of `read_torch`, and give them like those of a safetensors file.

    Args:
        tensors: A state dict from the file.
        path: The file.

    Raises:
        ValueError: If there are other values than dense tensors, or they claim to be larger than the file.
    """
    kinds = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or type(tensor) not in (Tensor, nn.Parameter):
            raise ValueError("weights that are not tensors")
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in TYPES.values():
            raise ValueError(f"a tensor of the type {tensor.dtype}, layout {tensor.layout}, on {tensor.device}")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"a tensor of {tensor.numel():,} elements that are not in the file")
        kinds[name] = TensorKind(tuple(tensor.shape), tensor.dtype)
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > path.stat().st_size:
        raise ValueError("tensors that are larger than the file")
    return StoredTensors(kinds, lambda: {name: tensor.detach().clone() for name, tensor in tensors.items()})


class TooManyTensors(Exception):
    """A network has more tensors than were expected."""


@contextmanager
def at_most(tensors: int) -> Iterator[None]:
    """Limit the number of parameters and buffers that modules may get inside this context.

    Settings of a stranger can describe a network that would take hours to build. This stops it, whichever setting asks for it.

    Args:
        tensors: The limit.

    Raises:
        TooManyTensors: When the limit is exceeded.
    """
    count = 0

    def register(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > tensors:
            raise TooManyTensors

    handles = (register_module_parameter_registration_hook(register), register_module_buffer_registration_hook(register))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
