"""Random packing of scans into batches of a slice budget, with almost no unused space."""

import heapq
from collections import deque
from collections.abc import Sequence

import numpy as np

CANDIDATES = 16
"""Of the next in line, how many are tried for a pair that leaves no room."""

SPREAD = 4
"""Batches that are dealt out again, at least, and for each one that is missing: they are then four fifths full."""


def pack(lengths: Sequence[int] | np.ndarray, budget: int, most: int) -> list[list[int]]:
    """Fill batches in the order given, except that the last ones of a batch are chosen to fill it up.

    In a random order this gives random company: a batch takes what is next in line until two more will fill it, and then the
    pair, or the one, that leaves the least room.

    Args:
        lengths: Slices of each item, in the order in which they stand in line.
        budget: Most slices in a batch; an item beyond it makes a batch alone.
        most: Most items in a batch.

    Returns:
        The places in line of each batch's items; every item is in exactly one batch.

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
    """Items that wait to be packed."""

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
        # Room below which a batch is not filled at random any more, so that two can be chosen for what is left.
        self._reserve = float(lengths[within].mean()) if len(within) else 0.0
        self._find_longest()

    def _find_longest(self) -> None:
        """For each room, the longest waiting item that fits, or 0."""
        kinds = np.where(self._count > 0, np.arange(len(self._count)), 0)
        self._longest: list[int] = np.maximum.accumulate(kinds).tolist()

    def fits(self, room: int) -> bool:
        """Whether anything that waits fits."""
        return self._longest[room] > 0

    def take(self, room: int, *, last: bool) -> int:
        """Take one out of the line: the next, or the one that fills the room best, alone or with another."""
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
        best, filled = None, self._longest[room]
        if not last and filled < room:
            for place in self._next(CANDIDATES):
                length = self.lengths[place]
                if length > room:
                    continue
                partner = self._longest[room - length]
                if partner == length and self._count[length] == 1:
                    continue  # itself
                if length + partner > filled:
                    best, filled = place, length + partner
                if filled == room:
                    break
        return self._first_of(self._longest[room]) if best is None else best

    def _next(self, count: int) -> list[int]:
        found: list[int] = []
        for place in self._in_order:
            if len(found) == count:
                break
            if not self._is_gone[place]:
                found.append(place)
        return found

    def _first_of(self, length: int) -> int:
        places = self._of_length[length]
        while self._is_gone[places[0]]:
            places.popleft()
        return places[0]


def spread_to(batches: Sequence[list[int]], lengths: Sequence[int], count: int, group: int) -> list[list[int]]:
    """Make more batches, and no nearly empty one: the items of the smallest are dealt out again, equally, to more of them.

    Args:
        batches: Places of each batch's items.
        lengths: Slices of the item at each place.
        count: Batches wanted, at least as many as there are; fewer come back if there are fewer items.
        group: Batches that are trained on at the same time: those dealt out again fill whole groups, if that can be.

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
    """Each item, the longest first, to the batch that has least."""
    batches: list[list[int]] = [[] for _ in range(count)]
    loads = [(0, i) for i in range(count)]
    for place in pool:
        load, i = heapq.heappop(loads)
        batches[i].append(place)
        heapq.heappush(loads, (load + lengths[place], i))
    return batches


def _halved(batches: Sequence[list[int]], count: int) -> list[list[int]]:
    """Halve the batches of most items until there are ``count``, or only single items are left."""
    batches = sorted(batches, key=len)
    while len(batches) < count and len(batches[-1]) > 1:
        largest = batches.pop()
        half = len(largest) // 2
        batches = sorted([*batches, largest[:half], largest[half:]], key=len)
    return batches
