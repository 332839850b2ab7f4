"""The architectures there are, each with its source, its input and its presets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any, Literal

from model.networks.base import Network
from model.networks.convrnn import SequentialEncoder
from model.networks.convstar import MultiStageConvSTAR
from model.networks.early import Elects
from model.networks.garnot import GarnotCNN, GarnotCNNGRU, GarnotConvLSTM, GarnotGRU
from model.networks.hybrid import HybridTemporalUNet
from model.networks.inceptiontime import InceptionTime
from model.networks.ltae import PixelLTAE
from model.networks.msresnet import MSResNet
from model.networks.omniscale import OmniScaleCNN
from model.networks.pse import PSELTAE
from model.networks.recurrent import RecurrentClassifier, StackedLSTM
from model.networks.starrnn import StarRNN
from model.networks.tempcnn import TempCNN
from model.networks.transformer import OrderFreeTransformer, RawTransformer
from model.networks.tsvit import TSViT
from model.networks.unet3d import UNet3D
from model.networks.utae import UTAE

#: ``pixel``: series [N, C, T], and windows as that many pixels. ``parcel-pixels``: a set of pixels
#: [B, C, T, S]. ``parcel-image``: [B, C, T, 32, 32]. ``image``: windows [B, C, T, H, W].
Input = Literal["pixel", "parcel-pixels", "parcel-image", "image"]


@dataclass(frozen=True)
class Architecture:
    """An entry of the catalogue.

    Attributes
    ----------
    network : type
        Its constructor takes ``c_in``, ``n_classes``, ``dates`` (if weights or reach depend on
        their number), and then the options.
    input : {"pixel", "parcel-pixels", "parcel-image", "image"}
        What one sample is.
    summary, source : str
        One sentence, and where it was published.
    presets : dict
        Name to options; the first is the default.
    """

    network: type[Network]
    input: Input
    summary: str
    source: str
    presets: dict[str, dict[str, Any]] = field(default_factory=lambda: {"default": {}})

    @property
    def options(self) -> dict[str, Any]:
        """Names and default values of the options."""
        parameters = inspect.signature(self.network).parameters.values()
        given = {"c_in", "n_classes", "dates"}
        return {p.name: p.default for p in parameters if p.name not in given}

    @property
    def takes_levels(self) -> bool:
        """Whether it can be given label levels: not where it has levels or decides by date."""
        return not (hasattr(self.network, "levels") or hasattr(self.network, "decisions"))

    @property
    def counts_dates(self) -> bool:
        """Whether the network is made for a number of dates."""
        return "dates" in inspect.signature(self.network).parameters


_BREIZHCROPS = "Rußwurm et al. (2020), arXiv 1905.11893"
_GARNOT = "Garnot et al. (2019), IGARSS, hal-02386701"
_MTLCC = "Rußwurm and Körner (2018), IJGI 7(4):129"

ARCHITECTURES: dict[str, Architecture] = {
    "hybrid": Architecture(
        HybridTemporalUNet,
        "image",
        "Temporal convolutions on each pixel, pooled over time, then a U-Net.",
        "Setaro, Coursimaux and Placier (2025); reference study of this project",
        {"lite": {"widths": "lite"}, "reference": {"widths": "reference"}},
    ),
    "tempcnn": Architecture(
        TempCNN,
        "pixel",
        "Three temporal convolutions, then a dense layer over all dates.",
        "Pelletier, Webb and Petitjean (2019), Remote Sensing 11(5):523",
        {
            "breizhcrops": {},
            "original": {"filters": 64, "k": 5, "hidden": 256, "dropout": 0.5},
            "small": {"filters": 32, "k": 5, "hidden": 64, "dropout": 0.2},
        },
    ),
    "lstm": Architecture(
        RecurrentClassifier,
        "pixel",
        "Four LSTM layers in one direction; the final states of all are classified.",
        f"{_BREIZHCROPS}, without its second direction",
        {"default": {"bidirectional": False}},
    ),
    "bilstm": Architecture(
        RecurrentClassifier,
        "pixel",
        "Four LSTM layers in both directions; the final states of all are classified.",
        _BREIZHCROPS,
    ),
    "gru": Architecture(
        RecurrentClassifier,
        "pixel",
        "Four GRU layers in one direction; the final states of all are classified.",
        f"Cho et al. (2014), arXiv 1406.1078; layout of {_BREIZHCROPS}",
        {"default": {"cell": "gru", "bidirectional": False}},
    ),
    "lstm-stack": Architecture(
        StackedLSTM,
        "pixel",
        "LSTM layers of 200, 125 and 100; the last date is classified.",
        "Weikmann, Paris and Bruzzone, monthly composites of Austria 2018",
    ),
    "starrnn": Architecture(
        StarRNN,
        "pixel",
        "Three recurrent layers with one gate each; the last date is classified.",
        "Turkoglu et al. (2021), IEEE TPAMI",
    ),
    "msresnet": Architecture(
        MSResNet,
        "pixel",
        "Three branches of residual blocks with kernels 3, 5 and 7.",
        _BREIZHCROPS,
    ),
    "inceptiontime": Architecture(
        InceptionTime,
        "pixel",
        "Six modules of parallel convolutions over 41, 21 and 11 dates.",
        "Ismail Fawaz et al. (2020), arXiv 1909.04939",
    ),
    "omniscale": Architecture(
        OmniScaleCNN,
        "pixel",
        "Parallel convolutions of all prime lengths.",
        "Tang et al. (2022), arXiv 2002.10061",
    ),
    "transformer": Architecture(
        RawTransformer,
        "pixel",
        "Self-attention over raw, irregular series.",
        "Rußwurm and Körner (2020), arXiv 1910.10536",
    ),
    "transformer-unordered": Architecture(
        OrderFreeTransformer,
        "pixel",
        "Self-attention without positions: the order of the dates does not matter.",
        _BREIZHCROPS,
    ),
    "ltae": Architecture(
        PixelLTAE,
        "pixel",
        "Temporal attention with one learned query per head.",
        "Garnot and Landrieu (2020), arXiv 2007.00586",
    ),
    "elects": Architecture(
        Elects,
        "pixel",
        "Decides date by date whether enough was seen; has a loss of its own.",
        "Rußwurm et al. (2023), arXiv 1901.10681",
        {
            "lstm": {},
            "gru": {"encoder": "gru"},
            "tempcnn": {"encoder": "tempcnn"},
            "transformer": {"encoder": "transformer"},
        },
    ),
    "garnot-cnn": Architecture(
        GarnotCNN, "parcel-image", "A CNN on each date, the maximum over dates.", _GARNOT
    ),
    "garnot-cnn-gru": Architecture(
        GarnotCNNGRU,
        "parcel-image",
        "A CNN on each date, then a GRU.",
        _GARNOT,
        {
            "gru9": {},
            "gru8": {"kernels": (16, 32, 36), "hidden": 96},
            "gru7": {"kernels": (16, 32, 64), "hidden": 64},
        },
    ),
    "garnot-gru": Architecture(
        GarnotGRU, "parcel-image", "A GRU over mean and deviation of each band.", _GARNOT
    ),
    "garnot-convlstm": Architecture(
        GarnotConvLSTM, "parcel-image", "A convolutional LSTM over the dates.", _GARNOT
    ),
    "pse-ltae": Architecture(
        PSELTAE,
        "parcel-pixels",
        "A parcel as a set of pixels on each date, then temporal attention.",
        "Garnot et al. (2020), arXiv 1911.07757; Garnot and Landrieu (2020), arXiv 2007.00586",
        {"any-length": {"norm": "channels"}, "reference": {"norm": "dates"}},
    ),
    "convgru": Architecture(
        SequentialEncoder,
        "image",
        "A convolutional GRU in both directions.",
        _MTLCC,
        {"128": {}, "256": {"hidden": 256}},
    ),
    "convlstm": Architecture(
        SequentialEncoder,
        "image",
        "A convolutional LSTM in both directions.",
        _MTLCC,
        {"128": {"cell": "lstm"}, "256": {"cell": "lstm", "hidden": 256}},
    ),
    "convstar": Architecture(
        MultiStageConvSTAR,
        "image",
        "Six convolutional STAR layers with three label levels.",
        "Turkoglu et al. (2021), arXiv 2102.08820",
    ),
    "utae": Architecture(
        UTAE,
        "image",
        "A U-Net on each date, whose dates are weighed by attention.",
        "Garnot and Landrieu (2021), arXiv 2107.07933",
    ),
    "tsvit": Architecture(
        TSViT,
        "image",
        "A vision transformer, along time first, with one token per class.",
        "Tarasiou, Chavez and Zafeiriou (2023), arXiv 2301.04944",
        {"small": {"d": 64, "head_size": 16}, "full": {}},
    ),
    "unet3d": Architecture(
        UNet3D,
        "image",
        "A U-Net whose convolutions go along time as well.",
        "Rustowicz et al. (2019), CVPR workshops; Garnot and Landrieu (2021), arXiv 2107.07933",
    ),
}
