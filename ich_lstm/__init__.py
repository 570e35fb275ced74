"""Detect intracranial hemorrhage on head CT with a CNN-LSTM that is trained end to end on whole scans."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ich_lstm.lazy import lazy_names

if TYPE_CHECKING:
    from ich_lstm.adaptation.adapt import Adaptation as Adaptation
    from ich_lstm.adaptation.adapt import adapt as adapt
    from ich_lstm.adaptation.comparing.settings import AdaptSettings as AdaptSettings
    from ich_lstm.data.datamodule import ScanDataModule as ScanDataModule
    from ich_lstm.data.loading.batches import Batches as Batches
    from ich_lstm.data.split.split_file import Split as Split
    from ich_lstm.errors import IchLstmError as IchLstmError
    from ich_lstm.explanation import Explanation as Explanation
    from ich_lstm.inference.explain import explain as explain
    from ich_lstm.labels import HEMORRHAGE_TYPES as HEMORRHAGE_TYPES
    from ich_lstm.labels import LABELS as LABELS
    from ich_lstm.models.encoder import Encoder as Encoder
    from ich_lstm.models.heads import GRU as GRU
    from ich_lstm.models.heads import LSTM as LSTM
    from ich_lstm.models.heads import NoHead as NoHead
    from ich_lstm.models.pooling import Pooling as Pooling
    from ich_lstm.models.reduction import Reduction as Reduction
    from ich_lstm.models.scan_model import ModelSettings as ModelSettings
    from ich_lstm.models.scan_model import ScanModel as ScanModel
    from ich_lstm.prediction import ScanPrediction as ScanPrediction
    from ich_lstm.preprocessing.crop_and_resize import Preprocessing as Preprocessing
    from ich_lstm.preprocessing.windows import Windows as Windows
    from ich_lstm.reading import read_scan as read_scan
    from ich_lstm.scan import Scan as Scan
    from ich_lstm.training.classifier import ScanClassifier as ScanClassifier
    from ich_lstm.training.losses import Loss as Loss
    from ich_lstm.training.optimizer import Optimizer as Optimizer
    from ich_lstm.window import Window as Window

# Where each public name lives. Nothing is imported until it is used: torch alone takes seconds.
_HOMES = {
    "AdaptSettings": "ich_lstm.adaptation.comparing.settings",
    "Adaptation": "ich_lstm.adaptation.adapt",
    "Batches": "ich_lstm.data.loading.batches",
    "Encoder": "ich_lstm.models.encoder",
    "Explanation": "ich_lstm.explanation",
    "GRU": "ich_lstm.models.heads",
    "HEMORRHAGE_TYPES": "ich_lstm.labels",
    "LABELS": "ich_lstm.labels",
    "LSTM": "ich_lstm.models.heads",
    "IchLstmError": "ich_lstm.errors",
    "Loss": "ich_lstm.training.losses",
    "ModelSettings": "ich_lstm.models.scan_model",
    "NoHead": "ich_lstm.models.heads",
    "Optimizer": "ich_lstm.training.optimizer",
    "Pooling": "ich_lstm.models.pooling",
    "Preprocessing": "ich_lstm.preprocessing.crop_and_resize",
    "Reduction": "ich_lstm.models.reduction",
    "Scan": "ich_lstm.scan",
    "ScanClassifier": "ich_lstm.training.classifier",
    "ScanDataModule": "ich_lstm.data.datamodule",
    "ScanModel": "ich_lstm.models.scan_model",
    "ScanPrediction": "ich_lstm.prediction",
    "Split": "ich_lstm.data.split.split_file",
    "Window": "ich_lstm.window",
    "Windows": "ich_lstm.preprocessing.windows",
    "adapt": "ich_lstm.adaptation.adapt",
    "explain": "ich_lstm.inference.explain",
    "read_scan": "ich_lstm.reading",
}
__all__ = ["__version__", *_HOMES]

_get, _ = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return import_module("importlib.metadata").version("ich_lstm") if name == "__version__" else _get(name)


def __dir__() -> list[str]:
    return sorted(__all__)
