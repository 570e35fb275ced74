"""How checkpoints are written and read: whole or not at all, of plain values, and checked before they are used."""

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins import CheckpointIO
from lightning_fabric.utilities.types import _PATH
from torch import Tensor

from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.files.atomic_write import SUFFIX, atomic_write

LAST = "last.ckpt"
"""The newest checkpoint of a fit, from which it is resumed."""

BEFORE_LAST = "before-last.ckpt"
"""The checkpoint that was the newest one before; it is used if the newest one is damaged."""


class WholeCheckpointIO(CheckpointIO):
    """Writes a checkpoint beside its target, flushes it to the disk, and renames it. A kill or a full disk leaves the old file.

    A checkpoint is torch's zip file of tensors and plain values. It is read with ``weights_only``, which executes no code, after
    the zip's own checksums have been compared with the content. Of `LAST`, the former file is kept as `BEFORE_LAST`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Args:
            checkpoint: The content; every value in it must be plain, see `plain`.
            path: The file to write.
            storage_options: Must be None, because checkpoints are files on a local or mounted disk.

        Raises:
            ConfigError: ``not_plain``, if a value could not be read back without executing code, or if storage options are given.
        """
        if storage_options is not None:
            raise ConfigError("not_plain", where=f"checkpoint {Path(path).name}", got="storage options", todo="Leave them out.")
        content = plain(checkpoint)
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target) as unfinished:
            with unfinished.open("wb") as file:  # given a path, torch would hide that the disk is full
                torch.save(content, file)
            if target.name == LAST and target.exists():
                _keep(target, target.with_name(BEFORE_LAST))

    def load_checkpoint(
        self, path: _PATH, map_location: Any = lambda storage, device: storage, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint onto the CPU.

        Args:
            path: The file to read.
            map_location: Device for the tensors, as `torch.load` accepts it.
            weights_only: It has no effect: only tensors and plain values are ever read.

        Raises:
            CheckpointError: ``missing_checkpoint`` or ``checkpoint_damaged``.
        """
        return read_checkpoint(Path(path), map_location)

    def remove_checkpoint(self, path: _PATH) -> None:
        """Remove a checkpoint; a missing one is no error.

        Args:
            path: The file to remove.
        """
        Path(path).unlink(missing_ok=True)


def _keep(path: Path, other: Path) -> None:
    """Give a file a second name, so that at every moment one of the two names is that of a whole file."""
    link = other.with_name(f".{other.name}{SUFFIX}")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, other)
    except OSError:  # a file system without links
        os.replace(path, other)
    finally:
        link.unlink(missing_ok=True)


def plain(value: Any, where: str = "checkpoint") -> Any:
    """Copy nested values that can be read back without executing code; numbers of numpy become Python's.

    Args:
        value: Tensors, numbers, text, bytes, None, and mappings and sequences of these.
        where: Name of the value in errors.

    Raises:
        ConfigError: ``not_plain``, if a value is of another type.
    """
    if value is None or isinstance(value, Tensor | str | bytes | bool | int | float | complex | torch.Size | torch.dtype):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {plain(key, where): plain(item, f"{where}, {key}") for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(item, f"{where}, item {i}") for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items) if isinstance(value, tuple) else set(items)
    raise ConfigError(
        "not_plain",
        where=where,
        got=f"a value of the type {type(value).__name__}",
        expected="tensors, numbers, text, and mappings and lists of these, because checkpoints are read without executing code",
        todo="Let state_dict() of that callback, or on_save_checkpoint, return plain values.",
    )


def read_checkpoint(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, after comparing its content with its checksums.

    Args:
        path: The file to read.
        map_location: Device for the tensors, as `torch.load` accepts it.

    Raises:
        CheckpointError: ``missing_checkpoint`` or ``checkpoint_damaged``.
    """
    if not path.is_file():
        raise CheckpointError("missing_checkpoint", where=str(path), got="no such file", todo="Check the path.")
    reason = damage_in(path)
    try:
        content = None if reason else torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        reason = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
    if reason or not isinstance(content, dict):
        raise CheckpointError(
            "checkpoint_damaged",
            where=str(path),
            got=reason or "no checkpoint of a training",
            expected="a complete checkpoint",
            todo=f"Use another checkpoint: {BEFORE_LAST} or best.ckpt of the same folder.",
        )
    return content


def damage_in(path: Path) -> str | None:
    """Compare a checkpoint with its checksums; None if it is whole, otherwise what is wrong with it."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        return f"{path.stat().st_size:,} bytes that are not a complete checkpoint ({type(error).__name__}: {error})"
    return None if damaged is None else f"a content that differs from its checksum, in {damaged}"


def newest_whole(folder: Path, broken: Callable[[Path, str], None]) -> Path | None:
    """The newest checkpoint in a folder that is whole; None if there is none.

    Args:
        folder: Folder of the checkpoints of a fit.
        broken: Called with each damaged checkpoint that is passed over, and with what is wrong with it.
    """
    for path in (folder / LAST, folder / BEFORE_LAST):
        if not path.is_file():
            continue
        reason = damage_in(path)
        if reason is None:
            return path
        broken(path, reason)
    return None
