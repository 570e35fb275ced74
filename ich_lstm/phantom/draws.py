"""Random draws as pure functions of a seed and of names, so that no draw depends on another patient or purpose."""

import hashlib

import numpy as np

Rng = np.random.Generator


def stream(seed: int, patient: int, *purpose: str | int) -> Rng:
    """The random stream of one patient for one purpose, such as ``"head"`` or ``"noise", 3``.

    A new purpose gets a stream of its own, so that it changes no other draw.

    Example:
        >>> bool(stream(1, 0, "head").random() == stream(1, 0, "head").random())
        True
    """
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence([seed, patient, int.from_bytes(digest[:8], "big")]))


def chance(seed: int, *names: str | int) -> float:
    """A number in [0, 1), uniformly distributed over the names.

    Example:
        >>> chance(1, "reader", 3) == chance(1, "reader", 3) != chance(2, "reader", 3)
        True
    """
    return int.from_bytes(_digest(seed, *names)[:6], "big") / 2**48


def valid_uid(seed: int, *names: str | int) -> str:
    """A valid UID (PS3.5 B.2: 2.25 and 128 bits), different for different names."""
    return f"2.25.{int.from_bytes(_digest(seed, 'uid', *names)[:16], 'big')}"


def _digest(seed: int, *names: str | int) -> bytes:
    return hashlib.sha256(" ".join(map(str, ("ich_lstm phantom", seed, *names))).encode()).digest()
