from __future__ import annotations

from pathlib import Path

import pytest
from programs import ROOT, overrides


@pytest.fixture
def tiny(tmp_path: Path) -> list[str]:
    """Arguments of a program that make it write to tmp_path, in a second or two; ends in overrides."""
    options = ["--size", "16", "32", "16", "--rounds", "2", "--out", str(tmp_path)]
    bundle = str(ROOT / "bundles" / "ldseg_knee3d")
    return [bundle, *options, "--set", "model_path=none", "amp=False", *overrides("ldseg_knee3d")]
