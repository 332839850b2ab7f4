"""From cubes and parcels to trained models, honest scores and maps."""

from model.areas import estimate_areas
from model.artefact import Artefact, load
from model.boost import boost
from model.calibrate import Calibration, calibrate
from model.compare import Comparison, compare
from model.evaluate import evaluate
from model.export import export_onnx
from model.labels import LabelReport, write_labels
from model.leakage import audit
from model.legend import Legend, load_legend
from model.parcels import read_parcels
from model.predict import predict, predict_store
from model.sampleset import SampleSet
from model.scores import Scores
from model.setdata import SetData
from model.splits import Split, folds, split_parcels, split_zones
from model.stream import LiveTiles
from model.tiles import TileData
from model.train import train
from model.trials import compare_splits, cross_validate, transfer
from model.weak import WeakRun, weak_stage
from model.zones import Layout, choose_zones, read_zones

__all__ = [
    "Artefact",
    "Calibration",
    "Comparison",
    "LabelReport",
    "Layout",
    "Legend",
    "LiveTiles",
    "SampleSet",
    "Scores",
    "SetData",
    "Split",
    "TileData",
    "WeakRun",
    "audit",
    "boost",
    "calibrate",
    "choose_zones",
    "compare",
    "compare_splits",
    "cross_validate",
    "estimate_areas",
    "evaluate",
    "export_onnx",
    "folds",
    "load",
    "load_legend",
    "predict",
    "predict_store",
    "read_parcels",
    "read_zones",
    "split_parcels",
    "split_zones",
    "train",
    "transfer",
    "weak_stage",
    "write_labels",
]
