"""Which precision of the offline text pack to serve: agreement with fp32, speed, memory.

The rule: the fastest precision whose neighbours agree with fp32's (overlap@10 of at least 0.95) on every
catalogue, and whose vectors do not depend on what else is in the batch. Run: `python -m benchmarks.text_precision`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.catalogues import DATA, LARGE, catalogue_texts
from benchmarks.report import Line, print_report
from workers.encoders.linear import Precision
from workers.encoders.minilm import SERVED, build_minilm
from workers.encoders.pack import load_pack
from workers.encoders.text import OnnxTextEncoder
from workers.encoders.types import FloatArray

BAR = 0.95


def neighbours(rows: FloatArray, k: int) -> list[set[int]]:
    """The k nearest other rows of each row."""
    likeness = rows @ rows.T
    np.fill_diagonal(likeness, -np.inf)
    return [set(top) for top in np.argpartition(-likeness, k - 1, axis=1)[:, :k].tolist()]


def overlap(reference: FloatArray, rows: FloatArray, k: int = 10) -> float:
    """Mean share of the k nearest neighbours that both have (k at most the number of others)."""
    k = min(k, len(rows) - 1)
    pairs = zip(neighbours(reference, k), neighbours(rows, k), strict=True)
    return float(np.mean([len(one & other) / k for one, other in pairs]))


def memory_mb(folder: Path) -> float:
    """PSS of a fresh process that encoded 32 texts of 64 tokens with this pack."""
    program = (
        "import sys;from pathlib import Path;from workers.encoders.pack import load_pack;"
        "from workers.encoders.text import OnnxTextEncoder;"
        "OnnxTextEncoder(load_pack(Path(sys.argv[1]))).encode(['red ' * 62] * 32);"
        "print(next(l for l in open('/proc/self/smaps_rollup') if l.startswith('Pss:')).split()[1])"
    )
    answer = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True)
    return int(answer.stdout) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sample", type=int, default=200, help="texts of the large catalogue for the speed")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    texts = catalogue_texts(options.data)
    timed = texts[LARGE][:: max(1, len(texts[LARGE]) // options.sample)]
    rows: list[dict[str, Any]] = []
    encoders: dict[str, dict[int, OnnxTextEncoder]] = {}
    reference: dict[str, FloatArray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in get_args(Precision):
            pack = build_minilm(Path(folder) / precision, precision=precision)
            encoder = OnnxTextEncoder(pack, threads=2)
            encoders[precision] = {1: OnnxTextEncoder(load_pack(pack.folder)), 2: encoder}
            vectors = {name: encoder.encode(found) for name, found in texts.items()}
            reference = reference or vectors
            long, short = texts["luma_catalogue"][0], timed[0]
            together = encoder.encode([short, long])[0]
            agreement = {name.partition("_")[0]: overlap(reference[name], vectors[name]) for name in texts}
            cosines = np.concatenate([(reference[n] * vectors[n]).sum(1) for n in texts])
            rows.append(
                {
                    "precision": precision,
                    "file_mb": (pack.folder / "model.onnx").stat().st_size / 1e6,
                    "pss_mb": memory_mb(pack.folder),
                    **agreement,
                    "least": min(agreement.values()),
                    "min_cosine": float(cosines.min()),
                    "batch_effect": float(np.abs(together - encoder.encode([short])[0]).max()),
                }
            )
            print(f"{precision}: least overlap {min(agreement.values()):.3f}", file=sys.stderr)
        # Interleaved, so that another load of the machine meets all of them alike.
        best: dict[tuple[str, int], float] = {}
        for _ in range(options.rounds):
            for precision, sessions in encoders.items():
                for threads, encoder in sessions.items():
                    start = time.perf_counter()
                    encoder.encode(timed)
                    rate = len(timed) / (time.perf_counter() - start)
                    best[precision, threads] = max(rate, best.get((precision, threads), 0))
    lines = []
    for row in rows:
        name = row["precision"]
        per_catalogue = ", ".join(f"{catalogue} {row[catalogue.partition('_')[0]]:.3f}" for catalogue in texts)
        speed = f"{best[name, 1]:.0f} / {best[name, 2]:.0f} texts/s on 1 / 2 threads"
        size = f"file {row['file_mb']:.0f} MB, process {row['pss_mb']:.0f} MB"
        bar = f"overlap@10 >= {BAR} on each" if name == SERVED else None
        met = row["least"] >= BAR if name == SERVED else None
        lines.append(Line(f"{name}{' (served)' if name == SERVED else ''}: overlap@10", per_catalogue, bar, met))
        closest = f"least cosine {row['min_cosine']:.4f}, largest change by the batch {row['batch_effect']:.0e}"
        lines.append(Line(f"{name}: cost", f"{speed}, {size}, {closest}", None, None))
    print_report("text_precision", lines)
    sys.exit(any(line.met is False for line in lines))


if __name__ == "__main__":
    main()
