"""The notebooks run as they stand, and what they say of their results is so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def run(notebook: Path) -> dict[str, Any]:
    """Run the code cells one after the other, as Jupyter does; return what they define."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in json.loads(notebook.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), str(notebook), "exec"), names)
    return names


def test_there_is_one() -> None:
    assert [path.name for path in NOTEBOOKS] == ["segment.ipynb"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_has_no_output_of_a_run(notebook: Path) -> None:
    content = json.loads(notebook.read_text())
    assert content["nbformat"] == 4
    for cell in content["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


def test_segmenting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (notebook,) = NOTEBOOKS
    bundles = Path(__file__).parents[1] / "bundles"
    (tmp_path / "bundles").symlink_to(bundles, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names = run(notebook)
    assert names["dice"] > 0.5
    assert names["row"]["area_pixels_sd"] > 0
    saved = Image.open(tmp_path / "glands.png")
    assert (names["result"].label == names["np"].asarray(saved)).all()
