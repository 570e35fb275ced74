"""The recurrent head."""

import numpy as np
import pytest
import torch

from ich_lstm.models.heads import GRU, LSTM
from ich_lstm.models.heads.head import SequenceHead
from ich_lstm.models.heads.positions import position_features

LENGTHS = torch.tensor([4, 1, 6])


def make(kind: type[LSTM] | type[GRU] = LSTM, **changes) -> SequenceHead:
    torch.manual_seed(0)
    return kind(hidden_size=5, **changes).build(7).eval().double()


@pytest.fixture
def scans() -> tuple[torch.Tensor, torch.Tensor]:
    """Features and positions of three scans."""
    random = np.random.default_rng(0)
    positions = np.concatenate([np.sort(random.uniform(-80, 80, length)) for length in LENGTHS.tolist()])
    return torch.tensor(random.normal(size=(11, 7))), torch.tensor(positions)


@pytest.mark.parametrize("kind", [LSTM, GRU])
@pytest.mark.parametrize("bidirectional", [True, False])
class TestSequenceHead:
    def test_shape(self, kind: type, bidirectional: bool, scans) -> None:
        head = make(kind, bidirectional=bidirectional)
        assert head.out_features == (10 if bidirectional else 5)
        assert head(scans[0], LENGTHS, scans[1]).shape == (11, head.out_features)

    def test_neighbours_and_their_order_do_not_matter(self, kind: type, bidirectional: bool, scans) -> None:
        head = make(kind, bidirectional=bidirectional)
        together = head(scans[0], LENGTHS, scans[1]).split(LENGTHS.tolist())
        for features, positions, expected in zip(*(x.split(LENGTHS.tolist()) for x in scans), together, strict=True):
            torch.testing.assert_close(head(features, torch.tensor([len(features)]), positions), expected)
        turned = [torch.cat(x.split(LENGTHS.tolist())[::-1]) for x in scans]
        got = head(turned[0], LENGTHS.flip(0), turned[1])
        torch.testing.assert_close(torch.cat(got.split(LENGTHS.flip(0).tolist())[::-1]), torch.cat(together))

    def test_slices_see_what_they_should(self, kind: type, bidirectional: bool, scans) -> None:
        head = make(kind, bidirectional=bidirectional)
        before = head(scans[0], LENGTHS, scans[1])
        changed = scans[0].clone()
        changed[7] *= -1  # the third slice of the last scan
        moved = (head(changed, LENGTHS, scans[1]) - before).abs().amax(dim=1) > 0
        seen = [False] * 5 + [bidirectional] * 2 + [True] * 4
        assert moved.tolist() == seen


class TestPositions:
    def test_only_where_a_slice_lies_in_its_scan_counts(self, scans) -> None:
        head = make()
        moved = scans[1] + torch.repeat_interleave(torch.tensor([64.0, -128.0, 512.0]), LENGTHS)
        torch.testing.assert_close(head(scans[0], LENGTHS, moved), head(scans[0], LENGTHS, scans[1]), rtol=1e-4, atol=1e-4)
        assert (head(scans[0], LENGTHS, 2 * scans[1]) - head(scans[0], LENGTHS, scans[1])).abs().max() > 1e-3

    def test_distance_to_the_top_and_to_the_slice_below(self) -> None:
        got = position_features(torch.tensor([10.0, 15, 25, 7, -100, 0]), torch.tensor([3, 1, 2]))
        expected = [[15 / 50, 0], [10 / 50, 1], [0, 2], [0, 0], [2, 0], [0, 20]]
        np.testing.assert_allclose(got, expected, atol=1e-6)

    def test_a_head_without_positions_wants_none(self, scans) -> None:
        head = make(positions="none")
        assert torch.equal(head(scans[0], LENGTHS, None), head(scans[0], LENGTHS, scans[1]))

    def test_a_head_with_positions_says_when_there_are_none(self, scans) -> None:
        with pytest.raises(ValueError, match="positions_mm"):
            make()(scans[0], LENGTHS, None)
