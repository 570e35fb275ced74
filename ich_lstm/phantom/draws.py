"""Random draws as a pure function of a seed and words: the draws for one patient never depend on another."""

import hashlib


def chance(seed: int, *words: str | int) -> float:
    """A number in [0, 1), uniform over the words.

    Example:
        >>> chance(1, "reader", 3) == chance(1, "reader", 3) != chance(2, "reader", 3)
        True
    """
    return int.from_bytes(_digest(seed, *words)[:6], "big") / 2**48


def valid_uid(seed: int, *words: str | int) -> str:
    """A valid UID (PS3.5 B.2: 2.25 and 128 bits), another one for other words."""
    return f"2.25.{int.from_bytes(_digest(seed, 'uid', *words)[:16], 'big')}"


def _digest(seed: int, *words: str | int) -> bytes:
    return hashlib.sha256(" ".join(map(str, ("ich_lstm phantom", seed, *words))).encode()).digest()
