"""Random packing of scans into batches of a slice budget, with almost no unused space."""

import heapq
from collections import deque
from collections.abc import Sequence

import numpy as np

CANDIDATES = 16
"""Number of waiting items of each length that are tried to find a pair that fills a batch."""

SPREAD = 4
"""Number of the smallest batches that are redistributed for each batch to add, and at least in all. Afterwards these batches are
about four fifths full."""


def pack(lengths: Sequence[int] | np.ndarray, budget: int, most: int) -> list[list[int]]:
    """Fill batches in the given order, except that the last items of a batch are chosen to fill it completely.

    A batch takes the next items of the list until about two more would fill it. It then takes the pair of waiting items, or the
    single item, that leaves the least room. If the order of the items is random, the batches are nearly random too.

    Args:
        lengths: Number of slices of each item, in the order of the list.
        budget: Maximum number of slices in a batch; a longer item gets a batch of its own.
        most: Maximum number of items in a batch.

    Returns:
        For each batch, the indices of its items; every item is in exactly one batch.

    Example:
        >>> pack([30, 30, 50, 20, 40], budget=100, most=9)
        [[0, 1, 4], [2, 3]]
    """
    line = _Line(np.asarray(lengths, dtype=np.int64), budget)
    batches = [[place] for place in line.beyond_budget]
    while line.waiting:
        batch: list[int] = []
        room = budget
        while len(batch) < most and line.fits(room):
            place = line.take(room, last=len(batch) + 1 == most)
            batch.append(place)
            room -= line.lengths[place]
        batches.append(batch)
    return batches


class _Line:
    """The items that wait to be packed, in order.

    Args:
        lengths: Number of slices of each item, int64.
        budget: Maximum number of slices in a batch; longer items do not wait.
    """

    def __init__(self, lengths: np.ndarray, budget: int) -> None:
        self.lengths: list[int] = lengths.tolist()
        self.beyond_budget: list[int] = np.flatnonzero(lengths > budget).tolist()
        within = np.flatnonzero(lengths <= budget)
        self.waiting = len(within)
        self._in_order = deque(within.tolist())
        self._of_length: list[deque[int]] = [deque() for _ in range(budget + 1)]
        for place in within.tolist():
            self._of_length[self.lengths[place]].append(place)
        self._count = np.bincount(lengths[within], minlength=budget + 1)
        self._is_gone = [False] * len(self.lengths)
        # Room below which a batch is no longer filled in order, so that the best pair can be chosen for the rest.
        self._reserve = float(lengths[within].mean()) if len(within) else 0.0
        self._find_longest()

    def _find_longest(self) -> None:
        """Find, for each room, the longest waiting item that fits, or 0."""
        kinds = np.where(self._count > 0, np.arange(len(self._count)), 0)
        self._longest: list[int] = np.maximum.accumulate(kinds).tolist()

    def fits(self, room: int) -> bool:
        """Whether any waiting item fits."""
        return self._longest[room] > 0

    def take(self, room: int, *, last: bool) -> int:
        """Take an item: the next one, or, if little room is left, the one that fills it best, alone or with a partner.

        Args:
            room: Number of slices that are still free in the batch.
            last: Whether the batch can take only one more item.
        """
        while self._is_gone[self._in_order[0]]:
            self._in_order.popleft()
        place = self._in_order[0]
        if last or self.lengths[place] + self._reserve > room:
            place = self._best(room, last)
        self._is_gone[place] = True
        self.waiting -= 1
        length = self.lengths[place]
        self._count[length] -= 1
        if self._count[length] == 0:
            self._find_longest()
        return place

    def _best(self, room: int, last: bool) -> int:
        """The item that leaves the least room, alone or (unless it is the last of its batch) with a partner."""
        best, filled = None, self._longest[room]
        if not last and filled < room:
            for place in self._next(CANDIDATES):
                length = self.lengths[place]
                if length > room:
                    continue
                partner = self._longest[room - length]
                if partner == length and self._count[length] == 1:
                    continue  # the only waiting item of this length is the item itself
                if length + partner > filled:
                    best, filled = place, length + partner
                if filled == room:
                    break
        return self._first_of(self._longest[room]) if best is None else best

    def _next(self, count: int) -> list[int]:
        """The next waiting items in order, at most ``count``."""
        found: list[int] = []
        for place in self._in_order:
            if len(found) == count:
                break
            if not self._is_gone[place]:
                found.append(place)
        return found

    def _first_of(self, length: int) -> int:
        """The first waiting item of a length."""
        places = self._of_length[length]
        while self._is_gone[places[0]]:
            places.popleft()
        return places[0]


def spread_to(batches: Sequence[list[int]], lengths: Sequence[int], count: int, group: int) -> list[list[int]]:
    """Make more batches, none of them nearly empty, by redistributing the items of the smallest batches.

    Args:
        batches: For each batch, the indices of its items.
        lengths: Number of slices of each item.
        count: Number of batches wanted, at least the present number; fewer are returned if there are fewer items.
        group: Number of batches that are processed at the same time; redistributed batches fill whole groups if possible.

    Returns:
        The items in batches that have neither more slices nor more items than before.
    """
    if not batches:
        return []

    def slices_of(batch: list[int]) -> int:
        return sum(lengths[place] for place in batch)

    batches = sorted(batches, key=slices_of)
    missing = count - len(batches)
    few = min(max(SPREAD * missing, SPREAD), len(batches))
    for dealt in (*range(few, min(few + SPREAD * group, len(batches)) + 1), *range(few - 1, 0, -1)):
        pool = sorted((place for batch in batches[:dealt] for place in batch), key=lambda place: -lengths[place])
        if (dealt + missing) % group or len(pool) < dealt + missing:
            continue
        spread = _dealt_out(pool, lengths, dealt + missing)
        if max(map(slices_of, spread)) <= slices_of(batches[dealt - 1]) and max(map(len, spread)) <= max(map(len, batches)):
            return spread + batches[dealt:]
    return _halved(batches, count)


def _dealt_out(pool: Sequence[int], lengths: Sequence[int], count: int) -> list[list[int]]:
    """Put each item, the longest first, into the batch with the fewest slices."""
    batches: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, i) for i in range(count)]
    for place in pool:
        load, i = heapq.heappop(loads)
        batches[i].append(place)
        heapq.heappush(loads, (load + lengths[place], i))
    return batches


def _halved(batches: Sequence[list[int]], count: int) -> list[list[int]]:
    """Halve the batches with most items until there are ``count`` batches, or all have a single item."""
    batches = sorted(batches, key=len)
    while len(batches) < count and len(batches[-1]) > 1:
        largest = batches.pop()
        half = len(largest) // 2
        batches = sorted([*batches, largest[:half], largest[half:]], key=len)
    return batches
