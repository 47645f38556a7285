"""The pictures of the documents: the program that draws them, and what lies in the repository."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from ldseg_monai.data.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]
PICTURES = [*ROOT.glob("docs/pictures/*.png"), *ROOT.glob("bundles/*/docs/*.png")]
MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def program() -> ModuleType:
    pytest.importorskip("matplotlib")
    spec = spec_from_file_location("document_pictures", ROOT / "docs" / "pictures.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.logical_and(one, other).sum() / (one.sum() + other.sum())


def test_figure_of_the_method_shows_what_the_network_makes_of_a_phantom(
    program: ModuleType, tmp_path: Path
) -> None:
    write_phantoms("gland", tmp_path, 2, program.SEED)
    states = program._states(
        program.load_image(str(tmp_path / "images" / "case_001.png")),
        program._label(tmp_path, "case_001"),
    )
    # From the noisy latent of the true label the way back is short; from noise the image leads.
    assert dice(states["trained"], states["label"]) > dice(states["segmented"], states["label"])
    assert dice(states["segmented"], states["label"]) > 0.8
    program._save(program.draw_method(tmp_path, "case_001"), tmp_path / "method.png")
    with Image.open(tmp_path / "method.png") as drawn:
        with Image.open(ROOT / "docs" / "pictures" / "method.png") as kept:
            assert drawn.size == kept.size


def test_pictures_are_small() -> None:
    assert len(PICTURES) == 2 + len(list(ROOT.glob("bundles/*/docs/README.md")))
    assert [path for path in PICTURES if path.stat().st_size > MAX_BYTES] == []
