"""How a model is adapted to a site."""

from dataclasses import dataclass
from typing import Literal

from ich_lstm.evaluation.thresholds.operating_points import parse_rule
from ich_lstm.settings import require, require_choice

Doubtful = Literal["keep", "unknown", "soft"]
"""What happens to labels that are probably wrong."""


@dataclass(frozen=True, kw_only=True)
class AdaptSettings:
    """How a model is adapted to a site.

    Args:
        folds: Number of folds of the cross-validation over patients, at least 2.
        repeats: How often the patients are divided into folds anew, at least 1.
        epochs: Number of epochs in which a pooling or a head is trained, at least 1.
        pooling_lr: Peak learning rate of a new pooling, above 0.
        head_lr: Peak learning rate of the head, which starts from the model's own weights; above 0.
        last_stage: Whether to try the encoder's last layer group too. It is trained on pixels, in every fold, which takes hours
            on a CPU.
        last_stage_epochs: Number of epochs for the encoder's last layer group, at least 1.
        doubtful: Labels that are probably wrong: ``keep`` them as they are, count them as ``unknown``, or replace them by the
            probability that they are right (``soft``).
        most_wrong: The largest estimated share of wrong labels of "any" with which labels may be kept, in (0, 1].
        rules: Rules of the operating points, such as ``sensitivity=0.95``; the first is the default.
        replicates: Number of bootstrap resamples of patients, at least 100.
        seed: Seed of the folds, of the weights of a new pooling, and of the order of the scans.

    Raises:
        ConfigError: ``adaptation_out_of_range``, or ``unknown_rule``.
    """

    folds: int = 5
    repeats: int = 2
    epochs: int = 10
    pooling_lr: float = 1e-3
    head_lr: float = 3e-4
    last_stage: bool = False
    last_stage_epochs: int = 3
    doubtful: Doubtful = "keep"
    most_wrong: float = 0.1
    rules: tuple[str, ...] = ("sensitivity=0.95",)
    replicates: int = 2000
    seed: int = 1

    def __post_init__(self) -> None:
        code = "adaptation_out_of_range"
        least = {"folds": 2, "repeats": 1, "epochs": 1, "last_stage_epochs": 1, "replicates": 100}
        for name, smallest in least.items():
            value = getattr(self, name)
            require(code, f"a whole number, at least {smallest}", {} if value >= smallest else {name: value})
        rates = {name: getattr(self, name) for name in ("pooling_lr", "head_lr")}
        require(code, "above 0", {name: rate for name, rate in rates.items() if not 0 < rate < 1e3})
        require(code, "in (0, 1]", {} if 0 < self.most_wrong <= 1 else {"most_wrong": self.most_wrong})
        require_choice(code, "doubtful", self.doubtful, Doubtful)
        for rule in self.rules:
            parse_rule(rule)
