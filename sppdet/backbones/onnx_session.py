"""onnxruntime's sessions, and what keeps them from reporting on whoever uses them."""

from __future__ import annotations

import os

# From its import on onnxruntime keeps a device id in the user's cache folder and queues events with
# it, which it sends to its maker, unless this is set before.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

SILENT = 3


def make_session(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """Make a session of a serialized model on the CPU, with so many threads of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = SILENT
    # Threads that wait by spinning take the cores from torch's, which come next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
