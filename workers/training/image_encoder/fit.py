"""Fits what is not trained by gradient: the palette, and the axes on which kind, form and colour are written."""

# Checked with torch installed and without it, where its names are Any.
# mypy: disallow-untyped-decorators=False

import torch
from torch import Tensor
from torch.nn import functional

from workers.training.image_encoder.model import (
    COLOUR_DIM,
    FORM_DIM,
    INPUT_SIDE,
    ColourHistogram,
    ImageEncoder,
)

STRONG_COLOURS = 64
"""Part of the palette that is spread over the RGB cube where the photos have no colours: screens, print, drawings."""

_ROUNDS = 20
_PIXELS = 60_000
_CHUNK = 64


@torch.no_grad()
def fit(
    model: ImageEncoder, photos: tuple[Tensor, Tensor], drawings: tuple[Tensor, Tensor], generator: torch.Generator
) -> None:
    """Set palette, centroids and axes of `model` from pictures and their kinds, (uint8[n, 3, s, s], int64[n])."""
    _fit_palette(model.colour, photos[0], generator)
    chunks = torch.split(torch.cat([photos[0], drawings[0]]), _CHUNK)
    kinds = torch.cat([photos[1], drawings[1]])
    histograms = torch.cat([model.colour.histogram(_scaled(chunk)) for chunk in chunks])
    model.colour.mean.copy_(histograms.mean(0))
    model.colour.axes.copy_(principal_axes(histograms - model.colour.mean, COLOUR_DIM))
    features = [model.features(_scaled(chunk)) for chunk in chunks]
    embeddings, pooled = (torch.cat(part) for part in zip(*features, strict=True))
    sums = torch.zeros_like(model.centroids).index_add_(0, kinds, embeddings)
    model.centroids.copy_(functional.normalize(sums, dim=1))
    # Not centred: the angle to the origin is what was trained.
    model.kind_axes.copy_(principal_axes(embeddings, model.kind_axes.shape[1]))
    model.form_mean.copy_(pooled.mean(0))
    model.form_axes.copy_(principal_axes(pooled - model.form_mean, FORM_DIM, whiten=0.5))


def principal_axes(rows: Tensor, count: int, *, whiten: float = 0.0) -> Tensor:
    """The `count` strongest axes of rows float[n, d], as columns float[d, count], strongest first.

    `whiten` is the power of an axis' deviation by which it is divided: 0 keeps distances, 1 makes all axes alike.
    """
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    strengths = values.flip(0)[:count].clamp(min=1e-12).sqrt()
    axes: Tensor = vectors.flip(1)[:, :count] / (strengths / strengths[0]) ** whiten
    return axes


def _fit_palette(module: ColourHistogram, photos: Tensor, generator: torch.Generator) -> None:
    """k-means over the photos' pixels in Lab, then the points of an RGB grid farthest from all chosen so far."""
    lab = torch.cat([module.lab(_scaled(chunk)).flatten(0, 1)[::7] for chunk in torch.split(photos, _CHUNK)])
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
