"""Small networks of every architecture, and inputs for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model import networks
from model.networks.base import Network
from model.networks.catalogue import ARCHITECTURES

BANDS, CLASSES, DATES = 4, 5, 8

#: Options that keep the tests fast; the architecture stays what it is.
SMALL: dict[str, dict[str, Any]] = {
    "hybrid": {"d": 16},
    "convgru": {"hidden": 8},
    "convlstm": {"hidden": 8},
    "convstar": {"hidden": 8},
    "unet3d": {"width": 8},
    "garnot-convlstm": {"inner": 4, "hidden": 8},
    "tsvit": {"d": 16, "head_size": 4, "depth": 2, "size": 8},
    "lstm": {"hidden": 16},
    "bilstm": {"hidden": 16},
    "gru": {"hidden": 16},
    "starrnn": {"hidden": 16},
    "tempcnn": {"filters": 16, "hidden": 32},
    "msresnet": {"width": 8},
    "inceptiontime": {"width": 8},
}

#: Every architecture, and the presets that compute something else than their first.
ALL = [*networks.names(), "pse-ltae/reference"]
PIXEL = [name for name in networks.names() if ARCHITECTURES[name].input == "pixel"]
IMAGE = [name for name in networks.names() if ARCHITECTURES[name].input == "image"]
#: Networks whose source gives them no notion of order.
ORDER_FREE = {"transformer-unordered", "garnot-cnn"}


def build(name: str, **given: Any) -> Network:
    """Return a small network with normalisation statistics as after some training, in eval mode."""
    torch.manual_seed(0)
    name, _, preset = name.partition("/")
    sizes = {"c_in": BANDS, "n_classes": CLASSES, "months": DATES} | given
    options = {} if preset else SMALL.get(name, {})
    network = networks.create(name, preset=preset or None, **(options | sizes))
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for parameter in network.parameters():  # biases and gains that do something
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    if name == "elects":  # undecided from the start, so that every date counts
        nn.init.constant_(network.stop.bias, -1.0)
    return network.eval()


def inputs(network: Network, batch: int = 2, dates: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return network.example(batch, BANDS, dates)


def padded(given: dict[str, Tensor], extra: int = 3) -> dict[str, Tensor]:
    """Append invalid dates in which anything may stand."""
    x, valid, doy = given["x"], given["valid"], given["doy"]
    garbage = torch.full_like(x[:, :, :1], float("nan")).repeat_interleave(extra, dim=2)
    garbage[:, :, 0] = 1e3
    never = torch.zeros_like(valid[:, :1]).repeat_interleave(extra, dim=1)
    return given | {
        "x": torch.cat([x, garbage], dim=2),
        "valid": torch.cat([valid, never], dim=1),
        "doy": torch.cat([doy, torch.full((len(doy), extra), 9)], dim=1),
    }


def without_dropout(network: Network) -> Network:
    """Return the network in training mode, but with nothing random in it."""
    for module in network.train().modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    return network
