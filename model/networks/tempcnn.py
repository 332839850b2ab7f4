"""TempCNN: convolutions over the dates of a pixel's series."""

from __future__ import annotations

from torch import Tensor, nn

from model.networks.base import BatchNorm, SeriesNetwork, keep, to_length


class TempCNN(SeriesNetwork):
    """Three temporal convolutions, then a dense layer over all dates.

    Follows Pelletier, Webb and Petitjean (2019), Remote Sensing 11(5):523; the sizes of
    ``breizhcrops`` are those of Rußwurm et al. (2020), arXiv 1905.11893.

    Parameters
    ----------
    c_in, n_classes, dates : int
        Bands C, outputs K, dates T.
    filters, k : int
        Channels and length in dates (odd) of the convolutions.
    hidden : int
        Width of the dense layer.
    dropout : float
        After each convolution and after the dense layer.

    Notes
    -----
    The dense layer has a weight for each date: a shorter series counts as one whose last dates are
    invalid, and a longer one is refused. Invalid dates are zeroed before each convolution, exactly
    like the padding at the ends.
    """

    time_layers = ("convs", "dense")

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        dates: int,
        filters: int = 128,
        k: int = 7,
        hidden: int = 512,
        dropout: float = 0.182,
    ) -> None:
        super().__init__()
        if k < 1 or k % 2 == 0:
            raise ValueError(f"k = {k}: a temporal kernel needs an odd number of dates, such as 7")
        widths = (c_in, filters, filters)
        self.convs = nn.ModuleList(nn.Conv1d(c, filters, k, padding=k // 2) for c in widths)
        self.norms = nn.ModuleList(BatchNorm(filters) for _ in widths)
        self.dense = nn.Linear(filters * dates, hidden)
        self.dense_norm = BatchNorm(hidden)
        self.head = nn.Linear(hidden, n_classes)
        self.dropout = nn.Dropout(dropout)
        self.dates = dates

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        x, valid = to_length(x, valid, self.dates, "TempCNN")
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.dropout(norm(conv(x), valid).relu())
            x = keep(x, valid)
        x = self.dense_norm(self.dense(x.flatten(1))).relu()
        return self.head(self.dropout(x))
