"""Fits what is not trained by gradient: the palette, and the axes on which kind, form and colour are written."""

import torch
from torch import Tensor
from torch.nn import functional

from workers.training.image_encoder.model import (
    COLOUR_DIM,
    FORM_DIM,
    INPUT_SIDE,
    KIND_DIM,
    ColourHistogram,
    ImageEncoder,
)

STRONG_COLOURS = 64
"""Part of the palette that is spread over the RGB cube where the photos have no colours: screens, print, drawings."""

_ROUNDS = 20
_PIXELS = 60_000
_CHUNK = 64


@torch.no_grad()
def fit(model: ImageEncoder, photos: Tensor, drawings: Tensor, generator: torch.Generator) -> None:
    """Set the palette and all axes of `model` from training pictures uint8[n, 3, s, s]."""
    _fit_palette(model.colour, photos, generator)
    chunks = torch.cat([photos, drawings]).split(_CHUNK)
    histograms = torch.cat([model.colour.histogram(_scaled(chunk)) for chunk in chunks])
    model.colour.mean.copy_(histograms.mean(0))
    model.colour.axes.copy_(principal_axes(histograms - model.colour.mean, COLOUR_DIM))
    features = [model.features(_scaled(chunk)) for chunk in chunks]
    embeddings, pooled = (torch.cat(part) for part in zip(*features, strict=True))
    # Not centred: the angle to the origin is what was trained.
    model.kind_axes.copy_(principal_axes(functional.normalize(embeddings, dim=1), KIND_DIM))
    model.form_mean.copy_(pooled.mean(0))
    model.form_axes.copy_(principal_axes(pooled - model.form_mean, FORM_DIM, whiten=0.5))


def principal_axes(rows: Tensor, count: int, *, whiten: float = 0.0) -> Tensor:
    """The `count` strongest axes of rows float[n, d], as columns float[d, count], strongest first.

    `whiten` is the power of an axis' deviation by which it is divided: 0 keeps distances, 1 makes all axes alike.
    """
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    strengths = values.flip(0)[:count].clamp(min=1e-12).sqrt()
    return vectors.flip(1)[:, :count] / (strengths / strengths[0]) ** whiten


def _fit_palette(module: ColourHistogram, photos: Tensor, generator: torch.Generator) -> None:
    """k-means over the photos' pixels in Lab, then the points of an RGB grid farthest from all colours chosen so far."""
    lab = torch.cat([module.lab(_scaled(chunk)).flatten(0, 1)[::7] for chunk in photos.split(_CHUNK)])
    pixels = lab[torch.randperm(len(lab), generator=generator)[:_PIXELS]]
    kept = _kmeans(pixels, len(module.palette) - STRONG_COLOURS, generator)
    step = torch.linspace(-1, 1, 9)
    cube = torch.stack(torch.meshgrid(step, step, step, indexing="ij"), -1).reshape(-1, 3, 1, 1).expand(-1, -1, 2, 2)
    grid = module.lab(cube).reshape(-1, 3)
    away = torch.cdist(grid, kept).amin(1)
    for _ in range(STRONG_COLOURS):
        farthest = grid[away.argmax()][None]
        kept = torch.cat([kept, farthest])
        away = torch.minimum(away, torch.cdist(grid, farthest)[:, 0])
    module.palette.copy_(kept)


def _scaled(pictures: Tensor) -> Tensor:
    x = pictures.float() / 127.5 - 1
    return functional.interpolate(x, size=(INPUT_SIDE, INPUT_SIDE), mode="bilinear", antialias=True)


def _kmeans(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    centres = points[torch.randperm(len(points), generator=generator)[:count]].clone()
    for _ in range(_ROUNDS):
        nearest = torch.cdist(points, centres).argmin(1)
        sizes = torch.zeros(count).index_add_(0, nearest, torch.ones(len(points)))
        sums = torch.zeros(count, 3).index_add_(0, nearest, points)
        centres[sizes > 0] = sums[sizes > 0] / sizes[sizes > 0, None]
    return centres
