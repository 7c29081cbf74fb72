"""Opens ONNX Runtime sessions as the workers need them: few threads, little memory."""

from pathlib import Path

import onnxruntime as ort

from workers.encoders.pack import BadPack


def open_session(model: Path, *, threads: int) -> ort.InferenceSession:
    """A CPU session over `model` with `threads` threads per run (1 for queries, 2 for backfills).

    The arena is off: it keeps the largest batch's memory for ever. Threads do not spin: several workers
    share the cores. Raises `BadPack` where ONNX Runtime cannot load the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes share no public base
        raise BadPack(f"ONNX Runtime {ort.__version__} cannot load {model.name}: {str(error)[:300]}") from error


def choose_output(session: ort.InferenceSession, wanted: str | None, preferred: tuple[str, ...]) -> str:
    """The output to ask for: `wanted`, else the first of `preferred` that there is, else the first one."""
    names = [output.name for output in session.get_outputs()]
    if wanted is not None:
        if wanted not in names:
            raise BadPack(f"The model has no output {wanted!r}; it has {', '.join(names)}.")
        return wanted
    for name in preferred:
        if name in names:
            return name
    return str(names[0])
