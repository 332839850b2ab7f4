"""A trained network as an ONNX file, for programs without PyTorch."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cube.errors import ArtefactError
from model.artefact import Artefact
from model.networks.folding import folded
from model.networks.predictor import of_pixels
from model.samples import Normalisation, days_of_year

#: Architectures whose arithmetic can be written down without looking at the data.
EXPORTABLE = (
    *("hybrid", "tempcnn", "transformer", "transformer-unordered", "ltae"),
    *("inceptiontime", "omniscale"),
)
INPUT, OUTPUT = "reflectance", "probabilities"


def export_onnx(artefact: Artefact, path: str | Path) -> Path:
    """Write a network with its normalisation as an ONNX file.

    The file has one input, ``reflectance``: uint16, DN as in a cube, 0 = no data; [B, T, C, H, W]
    for networks of images and [N, T, C] for those of pixels. B (or N), H and W are free; H and W
    are multiples of the network's stride. Its output ``probabilities`` is float32 [B, K, H, W] or
    [N, K]. A pixel without any valid month gets numbers that mean nothing. The days of the year are
    those of the recipe. Normalisation and the model's temperature are inside.

    The metadata hold, as text or JSON: ``architecture``, ``classes``, ``legend``, ``bands``,
    ``recipe``, ``recipe_hash``, ``method_hash``, ``halo``, ``stride``, ``cropcube``.

    Parameters
    ----------
    artefact : Artefact
        A network, trained on a cube.
    path : path
        Replaced if it is there.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ArtefactError
        If the model is none of `EXPORTABLE`, was trained on samples that are from no cube, or the
        extra ``onnx`` is not installed.
    """
    onnx = _onnx()
    if artefact.architecture not in EXPORTABLE:
        raise ArtefactError(
            f"{artefact.folder}: {artefact.architecture} cannot be written as ONNX, because what "
            "it computes depends on which dates are valid (or it is no network); these can: "
            f"{', '.join(EXPORTABLE)}"
        )
    network = folded(artefact.network())
    days = torch.as_tensor(days_of_year(artefact.recipe.periods))
    module = _Standalone(network, artefact.normalisation, days, artefact.temperature[-1]).eval()
    program = _program(module, _example(artefact, network), _free(network))
    model = program.model_proto
    onnx.helper.set_model_props(model, _metadata(artefact, network))
    onnx.checker.check_model(model)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


class _Standalone(nn.Module):
    """From stored integers to probabilities."""

    mean: Tensor
    std: Tensor
    doy: Tensor

    def __init__(
        self, network: nn.Module, normalisation: Normalisation, doy: Tensor, temperature: float
    ) -> None:
        super().__init__()
        self.network, self.temperature = network, temperature
        self.register_buffer("mean", torch.tensor(normalisation.mean))
        self.register_buffer("std", torch.tensor(normalisation.std))
        self.register_buffer("doy", doy)

    def forward(self, reflectance: Tensor) -> Tensor:
        """Return probabilities [B, K, …] from uint16 [B, T, C, …]."""
        numbers = reflectance.to(torch.int32)
        valid = (numbers != 0).all(dim=2)
        place = (-1,) + (1,) * (reflectance.ndim - 3)
        x = (numbers.float() - self.mean.view(place)) / self.std.view(place)
        x = (x * valid[:, :, None]).transpose(1, 2)
        doy = self.doy.expand(reflectance.shape[0], -1)
        return (self.network(x, valid, doy) / self.temperature).softmax(dim=1)


def _example(artefact: Artefact, network: nn.Module) -> Tensor:
    place = () if of_pixels(network) else (32, 48)
    torch.manual_seed(0)
    shape = (3, artefact.dates, len(artefact.bands), *place)
    return torch.randint(0, 3000, shape).to(torch.uint16)


def _free(network: nn.Module) -> dict[int, Any]:
    """Return the axes of the input that may have any size."""
    batch = torch.export.Dim("batch", min=1)
    if of_pixels(network):
        return {0: batch}
    stride = int(network.stride)  # type: ignore[arg-type]
    rows, cols = (torch.export.Dim(name, min=2) for name in ("rows", "cols"))
    return {0: batch, 3: stride * rows, 4: stride * cols}


def _program(module: nn.Module, example: Tensor, free: dict[int, Any]) -> Any:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.inference_mode(mode=False), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({**free},),
            input_names=[INPUT],
            output_names=[OUTPUT],
            verbose=False,
        )


def _metadata(artefact: Artefact, network: nn.Module) -> dict[str, str]:
    recipe = artefact.recipe
    return {
        "architecture": artefact.architecture,
        "legend": artefact.legend.name,
        "classes": json.dumps(artefact.legend.classes, ensure_ascii=False),
        "bands": json.dumps(artefact.bands),
        "recipe": recipe.model_dump_json(),
        "recipe_hash": recipe.hash,
        "method_hash": recipe.method_hash,
        "halo": str(network.halo),
        "stride": str(network.stride),
        "cropcube": importlib.metadata.version("cropcube"),
    }


def _onnx() -> Any:
    try:
        import onnx
        import onnxscript  # noqa: F401  (PyTorch writes with it)
    except ImportError as error:
        raise ArtefactError(
            f"{error.name} is not installed; pip install 'cropcube[onnx]' to write ONNX files"
        ) from error
    return onnx
