"""Separates private from shareable files: keyed hashes, and the one folder that may hold identities."""

import hashlib
import hmac
import os
import secrets
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ich_lstm.errors import ConfigError

KEY_BYTES = 32
ID_HEX_DIGITS = 16
"""Length of an id: 64 bits, so that the probability that two of a million scans share an id is below 1 in 10 million."""

PRIVATE = Path("private")
"""Subfolder of a run or a prediction for everything that identifies a person."""

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
"""Permissions of the private folder, the folders below it, and the files in them."""

OTHERS = 0o077
"""The permissions of everyone but the owner."""


class ProjectKey:
    """A secret that turns identifiers into ids, which cannot be traced back without it.

    A plain hash of a patient id can be reversed by trying all ids; a keyed one (HMAC-SHA256) cannot. The same key gives
    the same ids, so that predictions, caches and tables of one project can be joined; ids of another project differ.

    Args:
        secret: 32 random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise ValueError(f"ProjectKey: {len(secret)} bytes, expected {KEY_BYTES}")
        self._secret = secret

    @classmethod
    def open(cls, path: Path | None = None) -> "ProjectKey":
        """Read the key file, or create it, readable by its owner only.

        Args:
            path: Path of the key file; by default ``project.key`` in the user's configuration folder.

        Raises:
            ConfigError: If the file does not hold a key, can be read by others, or cannot be created.
        """
        if path is None:
            from platformdirs import user_config_path

            path = user_config_path("ich_lstm") / "project.key"
        try:
            if not path.exists():
                _make_key_file(path)
            mode = path.stat().st_mode & 0o777
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                "project_key_unusable",
                where=str(path),
                got=str(error),
                todo="Give the path of another key file: [project_key=FILE].",
            ) from error
        try:
            key = cls(bytes.fromhex(text))
        except ValueError as error:
            raise ConfigError(
                "project_key_invalid",
                where=str(path),
                got=f"{len(text)} characters",
                expected=f"{2 * KEY_BYTES} hexadecimal digits",
                todo="Give the path of the right file: [project_key=FILE]; or remove this file to get a new key, and new ids.",
            ) from error
        if os.name == "posix" and mode & OTHERS:
            raise ConfigError(
                "project_key_readable",
                where=str(path),
                got=f"a key that other users can access (mode {mode:04o}), so that they could trace ids back to patients",
                expected=f"mode {PRIVATE_FILE:04o}",
                todo=f"Run chmod 600 {shlex.quote(str(path))}; if others have read it, remove it to get a new key, and new ids.",
            )
        return key

    def hash_id(self, identifier: str) -> str:
        """The id that replaces an identifier in all shareable files: 16 hexadecimal digits."""
        # surrogatepass: file names that are not UTF-8, and damaged headers, need ids too.
        return hmac.new(self._secret, identifier.encode(errors="surrogatepass"), hashlib.sha256).hexdigest()[:ID_HEX_DIGITS]


def _make_key_file(path: Path) -> None:
    """Write a new random key, readable by its owner only, unless another process has just done so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        aside.touch(mode=PRIVATE_FILE)
        aside.chmod(PRIVATE_FILE)  # the umask may have taken away more
        with aside.open("r+") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A link fails if the name is taken, so one of two processes creates the key, and neither reads a partial one.
        with suppress(FileExistsError):
            os.link(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def private_folder(parent: Path) -> Path:
    """Create and return the subfolder of ``parent`` for everything that identifies a person (mode 0700)."""
    folder = make_folder(parent / PRIVATE)
    folder.chmod(PRIVATE_FOLDER)  # an older folder may have another mode
    return folder


def make_folder(folder: Path) -> Path:
    """Create a folder and its parents, and return it; a private folder and those below it are accessible to their owner only."""
    if not folder.is_dir():
        make_folder(folder.parent)
        if folder.name == PRIVATE.name or is_private(folder):
            folder.mkdir(exist_ok=True, mode=PRIVATE_FOLDER)
            folder.chmod(PRIVATE_FOLDER)  # the umask may have taken away more
        else:
            folder.mkdir(exist_ok=True)
    return folder


def is_private(path: Path) -> bool:
    """Whether a file or folder lies below a private folder, as `private_folder` makes it.

    A user's own folder of that name counts only if nobody else can open it. Otherwise colleagues who share ``/data/private``
    could not read each other's models.
    """
    above = [folder for folder in path.absolute().parents if folder.name == PRIVATE.name]
    return any(folder.is_dir() and not folder.stat().st_mode & OTHERS for folder in above)


def opener_for(path: Path) -> Callable[[str, int], int] | None:
    """The ``opener`` with which ``open`` makes a file that is its owner's alone below a private folder; None elsewhere.

    Args:
        path: The file.
    """
    return _open_private if is_private(path) else None


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, PRIVATE_FILE)


def close_to_others(private: Path) -> None:
    """Take the permissions of everyone but the owner from all that lies in a private folder.

    Other libraries and earlier versions of this one may have written there with the system's permissions.

    Args:
        private: The private folder; may be missing.
    """
    for path in private.rglob("*"):
        with suppress(OSError):  # the file was removed meanwhile, or belongs to another user
            if not path.is_symlink() and path.stat().st_mode & OTHERS:
                path.chmod(PRIVATE_FOLDER if path.is_dir() else PRIVATE_FILE)


@contextmanager
def closed_to_others() -> Iterator[None]:
    """Create files and folders for their owner only while other libraries write private ones, whatever the umask is.

    A process that is started inside this context keeps creating its files like this. The umask is that of the whole process.
    """
    former = os.umask(OTHERS)
    try:
        yield
    finally:
        os.umask(former)
