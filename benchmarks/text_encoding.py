"""What the worker's text encoder costs beyond ONNX Runtime: texts in, vectors out, against the bare loop.

The bare loop runs the same session over the same sorted, padded batches, made beforehand. Pairs are short and
interleaved, and the ratio is the median of the pairs', so that another load of the machine meets both alike; the
ratio of CPU times stands beside it. Bar: 0.9. Run: `python -m benchmarks.text_encoding`.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.catalogues import DATA, LARGE, catalogue_texts
from benchmarks.report import Line, print_report
from workers.encoders.batcher import plan_batches
from workers.encoders.minilm import build_minilm
from workers.encoders.session import open_session
from workers.encoders.text import OnnxTextEncoder

BAR = 0.9

Feed = dict[str, NDArray[np.int64]]


def padded(ids: list[list[int]]) -> list[Feed]:
    """The batches as the session takes them."""
    feeds = []
    for batch in plan_batches([len(row) for row in ids]):
        width = max(len(ids[i]) for i in batch)
        tokens, mask = np.zeros((2, len(batch), width), np.int64)
        for row, index in enumerate(batch):
            tokens[row, : len(ids[index])] = ids[index]
            mask[row, : len(ids[index])] = 1
        feeds.append({"input_ids": tokens, "attention_mask": mask})
    return feeds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--texts", type=int, default=128, help="texts of one call, about what a worker claims")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args()
    every = catalogue_texts(options.data)[LARGE]
    calls = [every[start :: len(every) // options.texts][: options.texts] for start in range(options.pairs)]
    lines: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        pack = build_minilm(Path(folder) / "minilm")
        for threads in (1, 2):
            encoder = OnnxTextEncoder(pack, threads=threads)
            bare = open_session(pack.file("model.onnx"), threads=threads)
            wall, cpu, rates = [], [], []
            for pair, texts in enumerate([calls[0], *calls]):
                feeds = padded(encoder.tokenize(texts))
                taken: dict[str, tuple[float, float]] = {}
                # Alternating who goes first, so that a drift of the machine favours neither.
                for who in ("worker", "bare") if pair % 2 else ("bare", "worker"):
                    start, start_cpu = time.perf_counter(), time.process_time()
                    if who == "worker":
                        encoder.encode(texts)
                    else:
                        for feed in feeds:
                            bare.run(None, feed)
                    taken[who] = time.perf_counter() - start, time.process_time() - start_cpu
                wall.append(taken["bare"][0] / taken["worker"][0])
                cpu.append(taken["bare"][1] / taken["worker"][1])
                rates.append(len(texts) / taken["worker"][0])
            # The first pair warms up.
            ratio = float(np.median(wall[1:]))
            figure = f"{ratio:.3f} ({min(wall[1:]):.3f} to {max(wall[1:]):.3f}), {np.median(rates[1:]):.0f} texts/s"
            lines.append(Line(f"worker / bare loop, threads {threads}", figure, f">= {BAR}", ratio >= BAR))
            lines.append(Line(f"the same by CPU time, threads {threads}", f"{np.median(cpu[1:]):.3f}", None, None))
    print_report("text_encoding", lines)
    sys.exit(any(line.met is False for line in lines))


if __name__ == "__main__":
    main()
