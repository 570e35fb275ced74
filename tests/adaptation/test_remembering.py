"""The memory of a frozen head gives what the head gives, and computes each scan once."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fabricated import TINY, make_classifier

from ich_lstm import LSTM, ScanClassifier
from ich_lstm.adaptation.comparing.remembering import RememberedHead

LENGTHS = torch.tensor([5, 3])
ROWS = torch.arange(8)


@pytest.fixture
def classifier() -> ScanClassifier:
    """Its head has dropout, which a memory must not keep."""
    head = LSTM(hidden_size=8, num_layers=2, input_dropout=0.5, layer_dropout=0.5)
    return make_classifier(settings=replace(TINY, encoder=replace(TINY.encoder, dropout=0.5), head=head)).train()


@pytest.fixture
def features(classifier: ScanClassifier) -> torch.Tensor:
    width = classifier.model.encoder.out_features
    return torch.randn(8, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def memory(classifier: ScanClassifier) -> RememberedHead:
    found = RememberedHead()
    found.on_train_start(None, classifier)  # type: ignore[arg-type]  # it needs no Trainer
    return found


class TestRememberedHead:
    def test_it_gives_what_the_head_gives_without_dropout(self, classifier, memory, features) -> None:
        head = classifier.model.sequence
        positions = ROWS * 5.0
        for is_reversed in (None, torch.tensor([True, False])):
            expected = type(head).forward(head.eval(), features, LENGTHS, positions, is_reversed)
            for _ in range(2):
                torch.testing.assert_close(head(features, LENGTHS, positions, is_reversed), expected)

    def test_a_scan_is_computed_once_whatever_stands_beside_it(self, classifier, memory, features, monkeypatch) -> None:
        head, calls = classifier.model.sequence, []
        plain = type(head).forward

        def counted(self: Any, x: torch.Tensor, *others: Any) -> torch.Tensor:
            calls.append(len(x))
            return plain(self, x, *others)

        monkeypatch.setattr(type(head), "forward", counted)
        positions = ROWS * 5.0
        first = head(features, LENGTHS, positions)
        order = torch.cat([ROWS[5:], ROWS[:5]])
        swapped = head(features[order], LENGTHS.flip(0), positions[order])
        torch.testing.assert_close(torch.cat([swapped[3:], swapped[:3]]), first, rtol=0, atol=0)
        assert calls == [5, 3]
        head(features, LENGTHS, positions * 2)  # other positions, another output
        assert calls == [5, 3, 5, 3]

    def test_the_pooling_learns_behind_it(self, classifier, memory, features) -> None:
        classifier.choose_trained("pooling")
        logits = classifier.model.logits_of(features, LENGTHS, ROWS * 5.0)
        logits.scan_logits.sum().backward()
        assert all(weight.grad is not None for weight in classifier.model.pooling.parameters())
        assert all(weight.grad is None for weight in classifier.model.sequence.parameters())

    def test_the_head_is_itself_again_afterwards(self, classifier, memory, features) -> None:
        head = classifier.model.sequence
        assert "forward" in vars(head)
        memory.on_train_end(None, classifier)  # type: ignore[arg-type]
        assert "forward" not in vars(head)
