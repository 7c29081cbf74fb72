"""`python -m workers.training.image_encoder --data DIR --out DIR`: train the encoder, write its pack."""

import argparse
import sys
import time
from pathlib import Path

import msgspec
import torch

from workers.training.image_encoder.data import draw_pictures, load_photos
from workers.training.image_encoder.export import write_pack
from workers.training.image_encoder.fit import fit
from workers.training.image_encoder.model import ColourHistogram, ImageEncoder
from workers.training.image_encoder.train import Recipe, train_shape

NAME = "kindred-image-v1"


def main() -> int:
    """Train (or take the checkpoint in --out), fit the colour part, write the pack."""
    parser = argparse.ArgumentParser(prog="python -m workers.training.image_encoder", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds clothing_photos")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint.pt and the pack")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument(
        "--first-stage",
        type=int,
        default=0,
        help="begin with this stage, from --out/stage-N.pt; with the number of stages, only export",
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--colour-weight", type=float, default=1.05, help="length of the colour part over the kind's")
    parser.add_argument("--form-weight", type=float, default=0.3, help="length of the form part over the kind's")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    recipe = Recipe(seed=given.seed)
    begun = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {line}", flush=True)

    photos = load_photos(given.data / "clothing_photos")
    drawings = draw_pictures(recipe.drawings_per_kind, recipe.seed, photos.kinds)
    report(f"recipe {msgspec.json.encode(recipe).decode()}")
    report(f"{len(photos.labels)} photos, sha256 {photos.sha256}; {len(drawings.labels)} drawings, {drawings.sha256}")
    pictures = torch.from_numpy(photos.pixels), torch.from_numpy(photos.labels)
    drawn = torch.from_numpy(drawings.pixels), torch.from_numpy(drawings.labels)
    given.out.mkdir(parents=True, exist_ok=True)
    kinds = len(drawings.kinds)
    shape = train_shape(pictures, drawn, kinds, recipe, given.out, report, first=given.first_stage)
    colour = ColourHistogram(recipe.colours)
    model = ImageEncoder(shape, colour, kinds, given.form_weight, given.colour_weight)
    fit(model, pictures, drawn, torch.Generator().manual_seed(recipe.seed))
    folder = given.out / NAME
    revision = write_pack(model, folder, NAME)
    report(f"{folder / 'model.onnx'}: {(folder / 'model.onnx').stat().st_size} bytes, revision {revision}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
