"""A folder of predictions as a whole: the command that may write to it, and the studies in it."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ich_lstm.archive.folder.file_names import BEGUN, LOCK
from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.folder_lock import claimed
from ich_lstm.files.output_folder import is_new_or_empty, out_not_empty
from ich_lstm.privacy import PRIVATE, close_to_others, private_folder


@contextmanager
def claim_predictions(out: Path) -> Iterator[None]:
    """Lock a folder of predictions against other commands, from before the first file is read until after the last is written.

    Args:
        out: The folder, which must be new, empty, or created by ich-predict. It is created if missing, and removed again if
            no predictions were begun in it.

    Raises:
        ConfigError: ``out_not_empty`` if the folder contains other files, ``folder_in_use`` if another command is writing to it.
    """
    if not (is_free(out) or (out / PRIVATE / BEGUN).is_file()):
        raise not_predictions(out)
    existed = out.exists()

    def refuse(process: str) -> None:
        raise ConfigError(
            "folder_in_use",
            where="--out",
            got=f"{out}, to which another command is writing (process {process})",
            expected="one command at a time in a folder",
            todo="Wait until it has ended, or name another folder.",
        )

    lock = private_folder(out) / LOCK
    with claimed(lock, when_taken=refuse):
        close_to_others(lock.parent)
        try:
            yield
        finally:
            if not (out / PRIVATE / BEGUN).exists():
                lock.unlink(missing_ok=True)
                with suppress(OSError):  # the folder is not empty
                    lock.parent.rmdir()
                    if not existed:
                        out.rmdir()


def is_free(out: Path) -> bool:
    """Whether a folder is missing, or contains only the lock of this command."""
    return is_new_or_empty(out, apart_from=[PRIVATE.name]) and is_new_or_empty(out / PRIVATE, apart_from=[LOCK])


def not_predictions(out: Path) -> ConfigError:
    """The error for a folder with files that ich-predict has not written."""
    return out_not_empty(out, expected="a new or empty folder, or one that holds predictions of ich-predict")


class Arrivals:
    """The studies of a folder of predictions in order of arrival, and the paths that were not finished.

    Args:
        path: Path of the private file that stores them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with suppress(OSError, ValueError):
            kept = json.loads(path.read_text(encoding="utf-8"))
            self.studies: dict[str, None] = dict.fromkeys(kept["studies"])
            self.unfinished: dict[str, None] = dict.fromkeys(kept["unfinished"])
            return
        self.studies, self.unfinished = {}, {}

    def begin(self, studies: Iterable[str], paths: Iterable[Path], *, forget: Iterable[str]) -> None:
        """Record what a command is going to read.

        Args:
            studies: Identifiers of its studies; known studies keep their positions.
            paths: Paths that the command reads.
            forget: Identifiers of studies that are removed from the folder.
        """
        for identifier in forget:
            self.studies.pop(identifier, None)
        self.studies |= dict.fromkeys(studies)
        self.unfinished |= dict.fromkeys(map(_path_text, paths))
        self._write()

    def finish(self, paths: Iterable[Path]) -> None:
        """Record that a command has written all tables.

        Args:
            paths: Paths that the command has read.
        """
        for path in paths:
            self.unfinished.pop(_path_text(path), None)
        self._write()

    def _write(self) -> None:
        kept = {"studies": list(self.studies), "unfinished": list(self.unfinished)}
        write_text(self._path, json.dumps(kept, indent=0))


def _path_text(path: Path) -> str:
    return str(path.absolute())
