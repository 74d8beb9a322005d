"""Facts about an installation: versions, processor, compiled code, models, the time of a photo."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator

import cv2
import llvmlite.binding
import numpy as np
import torch

from sppdet.core.errors import SppdetError
from sppdet.core.jit import machine_code_folder, warm_up
from sppdet.core.parallel import available_cores, peak_memory
from sppdet.core.progress import duration
from sppdet.core.types import ImageArray
from sppdet.core.versions import installed
from sppdet.detection import model_zoo
from sppdet.detection.ensemble import load_detector

# What decides most about speed and memory.
PACKAGES = (
    "torch", "torchvision", "onnxruntime", "onnx", "numba", "numpy", "opencv-contrib-python",
    "pillow", "scikit-learn", "pydantic",
)  # fmt: skip
# LLVM's names of what convolutions and loops gain from, and those of the makers.
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512vnni": "AVX-512 VNNI",
    "avxvnni": "AVX-VNNI",
    "amx-int8": "AMX",
    "neon": "NEON",
    "dotprod": "dot products",
}
# Height and width of the photo, and of what it is enlarged from.
PHOTO, SEEDS = (480, 640), (24, 32)


def describe_software() -> Iterator[str]:
    """Yield lines of versions."""
    yield (
        f"sppdet {installed('sppdet')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()} {platform.machine()}"
    )
    yield ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    cuda = torch.version.cuda
    yield f"torch is built for {f'CUDA {cuda}' if cuda else 'processors only'}"


def describe_processor() -> str:
    """Say which features the processor has, by what the libraries were told, and the threads."""
    has = llvmlite.binding.get_host_cpu_features()
    found = [name for key, name in FEATURES.items() if has.get(key)] or ["none that matter"]
    return (
        f"processor {llvmlite.binding.get_host_cpu_name()}: {', '.join(found)}; torch uses "
        f"{torch.backends.cpu.get_cpu_capability()}; {available_cores()} cores, threads: torch "
        f"{torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}"
    )


def describe_loops() -> str:
    """Say where compiled loops are kept, and how large they are."""
    folder = machine_code_folder()
    if folder is None:
        return "compiled loops: no folder can be written, every process compiles them anew"
    files = [path for path in folder.rglob("*.nb[ci]") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    return f"compiled loops: {len(files)} files, {size / 1e6:.1f} MB in {folder}"


def compile_loops() -> None:
    """Compile all that detection and training need, and what only a detection reaches."""
    warm_up()
    load_detector("default").detect(draw_photo())


def try_models() -> Iterator[tuple[str, str]]:
    """Load each model and preset; yield its name, and what is wrong, which is "" for nothing."""
    # By their files: a list of models would end at one that is damaged.
    files = [*model_zoo.SHIPPED.glob("*.safetensors"), *model_zoo.PRESETS.glob("*.toml")]
    for name in sorted(path.stem for path in files):
        try:
            load_detector(name)
        except SppdetError as error:
            yield name, str(error)
        else:
            yield name, ""


def time_photo() -> str:
    """Detect objects in one photo three times; say how long the first and the best took."""
    detector, photo = load_detector("default"), draw_photo()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        detector.detect(photo)
        spent.append(time.perf_counter() - start)
    memory = peak_memory()
    peak = "" if memory is None else f"; {memory:.1f} GB of memory at most"
    height, width = PHOTO
    return (
        f"a photo of {width}x{height}: {duration(min(spent))}, the first {duration(spent[0])}{peak}"
    )


def draw_photo() -> ImageArray:
    """Draw soft spots of all colors, with grain: as many regions as in a photo."""
    rng = np.random.default_rng(0)
    spots = rng.integers(0, 256, (*SEEDS, 3), dtype=np.uint8)
    soft = cv2.resize(spots, PHOTO[::-1], interpolation=cv2.INTER_CUBIC)
    grain = np.asarray(rng.integers(0, 12, soft.shape), np.uint8)
    return np.asarray(cv2.add(soft, grain), np.uint8)
