"""From cubes and parcels to trained models, honest scores and maps."""

from model.areas import estimate_areas
from model.artefact import Artefact, load
from model.boost import boost
from model.compare import Comparison, compare
from model.evaluate import Scores, cross_validate, evaluate
from model.labels import LabelReport, write_labels
from model.legend import Legend, load_legend
from model.parcels import read_parcels
from model.predict import predict, predict_store
from model.sampleset import SampleSet
from model.setdata import SetData
from model.splits import Split, audit, folds, split_parcels, split_zones
from model.stream import LiveTiles
from model.tiles import TileData
from model.train import train
from model.zones import Layout, choose_zones, read_zones

__all__ = [
    "Artefact",
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
    "audit",
    "boost",
    "choose_zones",
    "compare",
    "cross_validate",
    "estimate_areas",
    "evaluate",
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
    "write_labels",
]
