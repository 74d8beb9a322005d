"""A model file of somebody else can do nothing but detect; and a detector in other processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sppdet.core.errors import ConfigError, ModelFormatError
from sppdet.core.model_file import ModelHeader, load_model, save_model
from sppdet.core.types import Detections
from sppdet.detection.detector import Detector
from sppdet.detection.ensemble import Ensemble
from tests.helpers.made_detector import make_detector, picture

Change = Callable[[dict[str, Any]], None]


def changed(folder: Path, change: Change) -> Path:
    """A model file whose settings somebody changed, its digest right."""
    path = folder / "model.safetensors"
    make_detector().save(path, description="", provenance={})
    header, tensors = load_model(path)
    change(header.config)
    fields = {name: getattr(header, name) for name in ModelHeader.__dataclass_fields__}
    save_model(path, ModelHeader(**fields), tensors)
    return path


def setting(name: str, value: object) -> Change:
    section, _, key = name.partition(".")

    def change(config: dict[str, Any]) -> None:
        config[section][key] = value

    return change


TOO_LARGE = (
    ("head.fc6", 700_000),
    ("head.fc6", 30_000),
    ("head.fc7", 30_000),
    ("head.pyramid_levels", [64, 63, 62]),
    ("head.pyramid_channels", 4000),
    ("head.context_scales", [1.0] * 8),
    ("features.scales", [100_000]),
    ("features.scales", [300] * 9),
    ("detection.scale_factors", [1000.0]),
    ("features.max_aspect_ratio", 1e6),
)


def test_settings_make_no_memory_that_the_arrays_do_not_fill(tmp_path: Path) -> None:
    changes = [setting(*one) for one in TOO_LARGE]
    paths = [changed(tmp_path / str(number), one) for number, one in enumerate(changes)]
    code = (
        "import resource, sys\n"
        "from sppdet.core.errors import ModelFormatError\n"
        "from sppdet.detection.detector import Detector\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "Detector.load(sys.argv[1]); before = peak()\n"
        "for path in sys.argv[2:]:\n"
        "    try:\n        Detector.load(path)\n"
        "    except ModelFormatError as error:\n        print(error)\n"
        "print((peak() - before) / 1000)\n"
    )
    good = changed(tmp_path / "good", lambda config: None)
    ran = subprocess.run([sys.executable, "-c", code, good, *paths], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    *errors, megabytes = ran.stdout.splitlines()
    assert len(errors) == len(paths)
    assert float(megabytes) < 100


def test_nothing_is_fetched_because_a_file_says_so(tmp_path: Path) -> None:
    path = changed(tmp_path, setting("features.download", True))
    assert Detector.load(path).config.features.download is False


def test_large_work_is_refused_with_its_size() -> None:
    with pytest.raises(ConfigError, match=r"million pixels.*for 50 million at most"):
        make_detector().configure(None, ["features.scales=[4000, 3900]"])


def test_one_that_is_dropped_is_gone_at_once() -> None:
    detector = make_detector()
    detector.detect(picture())
    parts = [weakref.ref(one) for one in (detector, detector.parts.head, detector.extractor)]
    del detector
    assert [one() for one in parts] == [None] * 3


def values(found: Detections) -> tuple[bytes, ...]:
    arrays = (found.boxes, found.scores, found.labels, found.margins)
    return tuple(array.tobytes() for array in arrays)


def detect(detector: Detector | Ensemble) -> tuple[bytes, ...]:
    return values(detector.detect(picture()))


@pytest.mark.parametrize("several", [False, True])
def test_a_pickled_one_finds_the_same(several: bool) -> None:
    made = make_detector()
    detector = Ensemble([made, make_detector(seed=1)]) if several else made
    again = pickle.loads(pickle.dumps(detector))  # noqa: S301
    assert again.classes == detector.classes
    assert detect(again) == detect(detector)


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_worker_processes_find_the_same(method: str) -> None:
    detector = make_detector()
    expected = detect(detector)
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(detect, detector).result(timeout=300) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_wait_for_threads_that_it_lacks(tmp_path: Path) -> None:
    code = (
        "import os, sys, torch; torch.set_num_threads(4)\n"
        "sys.path.insert(0, os.getcwd())\n"
        "from tests.helpers.made_detector import make_detector, picture\n"
        "detector = make_detector(); found = detector.detect(picture(400, 300))\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    again = detector.detect(picture(400, 300))\n"
        "    os._exit(0 if again.scores.tolist() == found.scores.tolist() else 3)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    root = Path(__file__).resolve().parent.parent.parent
    ran = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=300)
    assert ran.returncode == 0


def test_onnxruntime_keeps_and_sends_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, os.getcwd())\n"
        "from tests.helpers.made_detector import make_detector, picture\n"
        "make_detector().detect(picture())\n"
    )
    root = Path(__file__).resolve().parent.parent.parent
    environment = {key: value for key, value in os.environ.items() if "TELEMETRY" not in key}
    environment |= {"HOME": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "numba")}
    environment.pop("XDG_CACHE_HOME", None)
    subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, check=True)
    made = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert not [name for name in made if "onnx" in name.lower() or "microsoft" in name.lower()]


@pytest.mark.parametrize("digits", [5000, 100_000])
def test_numbers_of_thousands_of_digits_are_refused(tmp_path: Path, digits: int) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"seed = {'9' * digits}\n")
    with pytest.raises(ConfigError, match="is not TOML"):
        make_detector().configure(path)
    with pytest.raises(ConfigError):
        make_detector().configure(None, [f"seed={'9' * digits}"])


def test_a_header_with_such_a_number_is_damaged(tmp_path: Path) -> None:
    path = changed(tmp_path, lambda config: None)
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    text = data[8:end].replace(b'\\"seed\\": 0', b'\\"seed\\": ' + b"9" * 5000, 1)
    assert len(text) > end
    json.loads(text)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(ModelFormatError):
        Detector.load(path)
