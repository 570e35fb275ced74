"""Locates the folder of a model: on this machine, or on the Hugging Face hub."""

import re
from pathlib import Path

from ich_lstm.errors import CheckpointError

REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

SAFE_FILES = ("*.json", "*.safetensors", "*.md")
"""Nothing else is downloaded: these hold values and text, and execute nothing."""


def model_folder(name: Path | str) -> Path:
    """The folder of a name; a repository of the hub is downloaded into the hub's own cache.

    Args:
        name: A folder, or ``owner/name`` of a repository. What exists on this machine is a folder.

    Raises:
        CheckpointError: If there is neither.
    """
    path = Path(name)
    if path.exists():
        return path
    if not REPOSITORY.fullmatch(str(name)):
        raise CheckpointError(
            "missing_checkpoint",
            where=str(name),
            got="no such folder",
            expected="a folder, or owner/name of a repository of the Hugging Face hub",
            todo="Check the name.",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(name), allow_patterns=list(SAFE_FILES)))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise CheckpointError(
            "missing_checkpoint",
            where=str(name),
            got=f"no such folder, and from the hub {type(error).__name__}: {str(error).strip().splitlines()[0]}",
            expected="a folder, or a repository that can be downloaded",
            todo="Check the name and the connection; or copy the repository's files into a folder, and name that.",
        ) from error
