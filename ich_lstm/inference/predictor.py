"""Predictor: a model, its preprocessing and its calibration, from a scan or a folder to `ScanPrediction`."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ich_lstm.errors import CheckpointError, IchLstmError, StudyError
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.inference.calibration_file import read_calibration
from ich_lstm.inference.checkpoint import SavedModel, WeightsHash, find_model_folder, fitting, read_model
from ich_lstm.inference.forward import EncodedScan, TestTime, encode_scan, evaluation_mode, infer, predicted
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import FileRef, Study, choose_series, index_source, is_nifti, load_scan, read_nifti
from ich_lstm.reading.series.nifti import in_archive
from ich_lstm.reading.series.slabs import SLAB_MM, THIN_MM
from ich_lstm.scan import Note, Scan, Slab
from ich_lstm.settings import merged

if TYPE_CHECKING:
    from ich_lstm.models.released.weights import ChannelOrder

SYNTHETIC = Note("synthetic_model", "the model was trained on synthetic heads only")


@dataclass(eq=False, kw_only=True)
class Predictor:
    """A model that predicts: the network with all that a prediction needs to know of it, and nothing of its training.

    Args:
        model: The network; predictions run on the device it is on and leave its mode as it was.
        preprocessing: How scans are prepared for the network; None: unknown, and it cannot predict.
        calibration: Recalibration and operating points, which predictions show beside the probabilities; None: there are none.
        name: What predictions call the model.
        is_synthetic: Whether the model was trained on synthetic heads, of which its predictions then warn.
        slice_mm: Usual distance in mm of the slices in the scans it was trained on; None: unknown.
        test_time: What a prediction is the mean of: ``flip``: the scan and its mirror image; ``flip-reverse``: both, each read
            upwards and downwards; ``none``: nothing but the scan.
        hash: Remembers the hash of the network's weights.

    Example:
        >>> predictor = Predictor.load("runs/rsna")  # doctest: +SKIP
        >>> for prediction in predictor.predict("export/"):  # doctest: +SKIP
        ...     print(prediction)
    """

    model: ScanModel
    preprocessing: Preprocessing | None
    name: str
    calibration: ModelCalibration | None = None
    is_synthetic: bool = False
    slice_mm: float | None = None
    test_time: TestTime = "none"
    hash: WeightsHash = field(default_factory=WeightsHash, repr=False)

    @classmethod
    def load(cls, path: Path | str, *, channel_order: "ChannelOrder | None" = None) -> "Predictor":
        """Read a model as `ScanClassifier.load` does, without what only its training needs.

        Args:
            path: A run's folder, a model's folder, a ``.ckpt``, or weights that others released.
            channel_order: Of the windows of Nguyen et al.'s released weights, and of no other model; see `ScanClassifier.load`.

        Returns:
            The predictor, its network in evaluation mode, on the CPU.

        Raises:
            ConfigError: If a channel order is given for another model.
            CheckpointError: If there is no model, or its weights do not fit its settings, or its calibration not its weights.
        """
        path = Path(path)
        saved = read_model(path, channel_order)
        about = saved.about
        with fitting(path):
            model = ScanModel(network_settings(saved))
            model.load_state_dict(saved.weights)
            preprocessing = None if about["preprocessing"] is None else Preprocessing(**about["preprocessing"])
        folder = find_model_folder(path)
        return cls(
            model=model.eval(),
            preprocessing=preprocessing,
            name=about["name"] or model.settings.encoder.backbone,
            calibration=None if folder is None else read_calibration(folder, saved.hash),
            is_synthetic=bool(about["is_synthetic"]),
            slice_mm=about["slice_mm"],
            test_time=about["settings"].get("test_time", "none"),
        )

    @property
    def slab_mm(self) -> float | None:
        """How thick the slabs are to which thin slices are averaged for this model; None if it was trained on thin ones."""
        return SLAB_MM if self.slice_mm is None or self.slice_mm > THIN_MM else None

    def weights_hash(self) -> str:
        """What the weights are known by, 12 hexadecimal digits."""
        return self.hash.of(self.model)

    def known_preprocessing(self) -> Preprocessing:
        """How scans are prepared for this model.

        Raises:
            CheckpointError: If it does not know.
        """
        if self.preprocessing is None:
            raise CheckpointError(
                "no_preprocessing",
                where="this model",
                got="no size and crop, for it was not trained with a ScanDataModule",
                todo="Set model.preprocessing = Preprocessing(size=..., crop=...).",
            )
        return self.preprocessing

    def predict(
        self, source: Path | str | Scan, *, project_key: ProjectKey | None = None, coherent: bool = True
    ) -> Iterator[ScanPrediction]:
        """Predict a scan, or every study below a path, one after the other; a NIfTI file is a study of its own.

        Of each study the plain axial brain series is read. Nothing is refused in silence: after all predictions have been
        given, an error lists the studies that could not be read.

        Args:
            source: A scan, a folder, a zip, or a file, which may be NIfTI.
            project_key: Key for the ids in the predictions; by default the user's own.
            coherent: A scan's probability is at least its most probable slice's, and that of "any" at least each type's, as the
                labels mean it; False: probabilities as the network gives them.

        Yields:
            One prediction per study.

        Raises:
            SourceError: If nothing can be read.
            StudyError: At the end, if studies were refused.
        """
        key = project_key or ProjectKey.open()
        if isinstance(source, Scan):
            yield self.predict_scan(source, key, coherent=coherent)
            return
        if is_nifti(source):
            yield self.predict_scan(read_nifti(source, slab_mm=self.slab_mm), key, coherent=coherent)
            return
        index = index_source(Path(source), must_have_ct=False)
        index.refuse_empty(Path(source))
        refused = []
        everything: list[Study | FileRef] = [*index.studies(), *index.nifti_files]
        for found in everything:
            try:
                if isinstance(found, Study):
                    scan = load_scan(choose_series(found).series, slab_mm=self.slab_mm)
                elif found.member is not None:
                    raise in_archive(found)
                else:
                    scan = read_nifti(found.path, slab_mm=self.slab_mm)
            except IchLstmError as error:
                refused.append(str(error))
                continue
            yield self.predict_scan(scan, key, coherent=coherent)
        if refused:
            raise StudyError(
                "refused",
                where=str(source),
                got=f"{len(refused)} studies without a prediction: " + " | ".join(refused),
                todo="Correct or remove them; all others have been predicted.",
            )

    def encode(self, scan: Scan) -> EncodedScan:
        """Preprocess a scan and run the encoder once; `predict_scan` and `explain` go on from there.

        Args:
            scan: The scan.

        Raises:
            CheckpointError: If the model does not know how scans are prepared for it.
        """
        with evaluation_mode(self.model):
            return encode_scan(self.model, scan, self.known_preprocessing())

    def predict_scan(self, scan: Scan | EncodedScan, project_key: ProjectKey, *, coherent: bool = True) -> ScanPrediction:
        """Predict one scan, on the device the model is on; the model's mode is left as it was.

        Args:
            scan: The scan, or what `encode` made of it.
            project_key: Key for the ids.
            coherent: As in `predict`.

        Raises:
            CheckpointError: If the model does not know how scans are prepared for it.
            ConfigError: If its calibration was fitted to the other kind of probabilities.
        """
        if self.calibration is not None:
            self.calibration.check_fits(coherent)
        encoded = self.encode(scan) if isinstance(scan, Scan) else scan
        scan = encoded.scan
        with evaluation_mode(self.model), torch.no_grad():
            logits = infer(
                self.model,
                encoded.hu,
                encoded.lengths,
                encoded.positions_mm,
                test_time=self.test_time,
                features=encoded.features,
            )
            found = predicted(logits, encoded.lengths, coherent=coherent)
        prediction = ScanPrediction(
            slice_probabilities=found.slices.cpu().numpy(),
            scan_probabilities=found.scans[0].cpu().numpy(),
            scan_id=project_key.hash_id(scan.identifier),
            slice_ids=tuple(project_key.hash_id(uid) for uid in scan.sop_uids),
            patient_id=project_key.hash_id(scan.patient_id) if scan.patient_id else "",
            positions_mm=scan.positions_mm,
            spacing_mm=scan.spacing_mm,
            tilt_degrees=scan.tilt_degrees,
            hu=scan.hu,
            flags=scan.flags + ((SYNTHETIC,) if self.is_synthetic else ()),
            repairs=scan.repairs,
            model_name=self.name,
            model_hash=self.weights_hash(),
            slabs=tuple(Slab(tuple(project_key.hash_id(uid) for uid in slab.ids), slab.positions_mm) for slab in scan.slabs),
        )
        return prediction if self.calibration is None else self.calibration.apply(prediction)


def network_settings(saved: SavedModel) -> ModelSettings:
    """Those of the stored settings that make the network; the others say how it was trained.

    Args:
        saved: A model as it is stored.

    Raises:
        ConfigError: If a setting belongs neither to the network nor to its training: a newer version has written it.
    """
    names = {each.name for each in fields(ModelSettings)}
    stored, of_training = saved.about["settings"], saved.about["of_training"]
    if of_training is None:  # of the versions that did not tell the two apart
        of_training = stored.keys() - names
    stored = {name: value for name, value in stored.items() if name in names or name not in of_training}
    return merged(ModelSettings(), {**stored, "encoder": {**stored.get("encoder", {}), "pretrained": False}})
