"""The image encoder as torch modules: a small residual network for shape beside a palette histogram for colour.

Shape finds the category, colour finds the product, and one row holds both: its cosine is the weighted mean of the
parts' cosines. Only the network has learnt weights; palette and axes are fitted once and then fixed.
"""

# Checked with torch installed and without it, where its names are Any.
# mypy: disallow-subclassing-any=False

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

INPUT_SIDE = 96
EMBED_DIM = 128
"""Columns of the row that the losses work on."""

KIND_DIM = 64
FORM_DIM = 64
COLOUR_DIM = 128

TEMPERATURE = 0.1
"""Of the contrast that the embedding is trained by, and of the likelihoods of kinds."""

# sRGB (linear) -> XYZ relative to the D65 white.
_XYZ = (
    (0.4124 / 0.9505, 0.3576 / 0.9505, 0.1805 / 0.9505),
    (0.2126, 0.7152, 0.0722),
    (0.0193 / 1.0890, 0.1192 / 1.0890, 0.9505 / 1.0890),
)
# cube roots of XYZ -> CIE L*, a*, b* (less 16 in L).
_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))


class Residual(nn.Module):
    """Two 3x3 convolutions with a short cut (He et al. 2015, with the pooled short cut of ResNet-D)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            pool: nn.Module = nn.AvgPool2d(stride) if stride != 1 else nn.Identity()
            self.short = nn.Sequential(pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


class ShapeNet(nn.Module):
    """Pixels float[n, 3, side, side] in -1..1 -> (unit rows float[n, EMBED_DIM], pooled float[n, widths[-1]])."""

    def __init__(self, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        inputs = widths[0]
        for width, depth in zip(widths[1:], depths, strict=True):
            for k in range(depth):
                layers.append(Residual(inputs, width, 2 if k == 0 else 1))
                inputs = width
        self.layers = nn.Sequential(*layers)
        self.drop = nn.Dropout(0.1)
        self.project = nn.Linear(inputs, EMBED_DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.layers(x).mean((2, 3))
        return functional.normalize(self.project(self.drop(pooled)), dim=1), pooled


class ColourHistogram(nn.Module):
    """Shares of the picture near the colours of a palette, rooted, on main axes: unit rows float[n, COLOUR_DIM].

    Pixels are softly assigned by their CIE Lab distance, with white ground left out; the root makes the dot product
    the Bhattacharyya coefficient (Hellinger). `palette` is Lab [k, 3], `axes` [k, COLOUR_DIM] and `mean` [k].
    """

    palette: Tensor
    axes: Tensor
    mean: Tensor
    to_xyz: Tensor
    to_lab: Tensor

    def __init__(self, colours: int, softness: float = 3.5) -> None:
        super().__init__()
        self.softness = softness
        self.register_buffer("palette", torch.zeros(colours, 3))
        self.register_buffer("axes", torch.zeros(colours, COLOUR_DIM))
        self.register_buffer("mean", torch.zeros(colours))
        self.register_buffer("to_xyz", torch.tensor(_XYZ))
        self.register_buffer("to_lab", torch.tensor(_LAB))

    def lab(self, x: Tensor) -> Tensor:
        """Pixels float[n, 3, s, s] in -1..1 -> CIE Lab float[n, (s/2)**2, 3] of the picture at half its size."""
        rgb = functional.avg_pool2d(x, 2).flatten(2).transpose(1, 2) * 0.5 + 0.5
        rgb = rgb.clamp(0.0, 1.0)
        linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = linear @ self.to_xyz.T
        root = torch.where(xyz > 0.008856, xyz.clamp(min=1e-6) ** (1 / 3), 7.787 * xyz + 16 / 116)
        return root @ self.to_lab.T - torch.tensor((16.0, 0.0, 0.0))

    def histogram(self, x: Tensor) -> Tensor:
        """Square-rooted shares float[n, colours]."""
        lab = self.lab(x)
        # -|pixel - colour|^2 without |pixel|^2, which the softmax cancels.
        near = (lab @ (2 * self.palette.T) - (self.palette**2).sum(1)) / self.softness**2
        light, chroma = lab[..., 0], ((lab[..., 1:] ** 2).sum(2) + 1e-6).sqrt()
        white = torch.sigmoid((light - 93) / 1.5) * torch.sigmoid((6 - chroma) / 1.5)
        weight = 1.002 - white
        shares = weight.unsqueeze(1) @ near.softmax(2) / weight.sum(1)[:, None, None]
        return (shares.squeeze(1) + 1e-8).sqrt()

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize((self.histogram(x) - self.mean) @ self.axes, dim=1)


class ImageEncoder(nn.Module):
    """What is exported: pixels float[n, 3, INPUT_SIDE, INPUT_SIDE] in -1..1 -> unit rows float[n, 256].

    A row is kind (what it is), form (the pooled features, which still tell apart two things of a kind) and colour, each
    of length 1 times its weight. Kind is half the trained embedding, on fewer axes, and half the square-rooted
    likelihoods of the `kinds` trained on, by their centroids: sharper, so that the colour of two things of different
    kinds weighs less. Kind and form are means over the picture and its mirror image.
    """

    centroids: Tensor
    kind_axes: Tensor
    form_mean: Tensor
    form_axes: Tensor

    def __init__(
        self, shape: ShapeNet, colour: ColourHistogram, kinds: int, form_weight: float, colour_weight: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.colour = colour
        self.form_weight = form_weight
        self.colour_weight = colour_weight
        features = shape.project.in_features
        self.register_buffer("centroids", torch.zeros(kinds, EMBED_DIM))
        self.register_buffer("kind_axes", torch.zeros(EMBED_DIM, KIND_DIM - kinds))
        self.register_buffer("form_mean", torch.zeros(features))
        self.register_buffer("form_axes", torch.zeros(features, FORM_DIM))

    def features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embedding float[n, EMBED_DIM] and pooled features, both over the picture and its mirror image."""
        plain, pooled = self.shape(x)
        mirrored, pooled_mirrored = self.shape(x.flip(3))
        return functional.normalize(plain + mirrored, dim=1), (pooled + pooled_mirrored) / 2

    def forward(self, pixel_values: Tensor) -> Tensor:
        embedding, pooled = self.features(pixel_values)
        likelihoods = (embedding @ self.centroids.T / TEMPERATURE).softmax(1)
        axes = functional.normalize(embedding @ self.kind_axes, dim=1)
        kind = torch.cat([(likelihoods + 1e-8).sqrt(), axes], 1) * 0.5**0.5
        form = functional.normalize((pooled - self.form_mean) @ self.form_axes, dim=1)
        row = [kind, form * self.form_weight, self.colour(pixel_values) * self.colour_weight]
        return functional.normalize(torch.cat(row, 1), dim=1)
