"""What MONAI's clients do with a published bundle: a program of its own.

It is run by its path, with ``folder`` and ``out`` as JSON on the standard input, and imports
nothing of this package: the bundle has to stand alone. A failure ends with exit code 1; the last
line that it prints is what went wrong first.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def verify(folder: str, out: str) -> None:
    """Check the network against the metadata as the zoo does, load it, and segment a phantom.

    Args:
        folder: the unpacked bundle.
        out: folder of the masks, which are of the network that `monai.bundle.load` returns.
    """
    import monai.bundle

    root = Path(folder)
    configs = root / "configs"
    monai.bundle.verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.yaml"),
        device="cpu",
        bundle_root=folder,
    )
    for kind in ("train", "inference"):
        # The source is not asked, since the weights are there.
        network = monai.bundle.load(
            root.name, bundle_dir=root.parent, workflow_type=kind, source="github", device="cpu"
        )
    knobs: dict[str, Any] = {"output_dir": out, "phantoms": True, "force": True}
    knobs |= {"device": "cpu", "amp": False}
    knobs["handlers#0#_disabled_"] = True  # which loads the weights
    workflow = monai.bundle.create_workflow(
        config_file=str(configs / "inference.json"),
        workflow_type="inference",
        logging_file=False,
        **knobs,
    )
    missing = workflow.check_properties()
    if missing:
        sys.exit(f"inference.json lacks {', '.join(missing)}")
    workflow.network_def = network
    workflow.run()


if __name__ == "__main__":
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path = [place for place in sys.path if os.path.abspath(place) != own]
    sys.modules["ldseg_monai"] = None  # type: ignore[assignment]
    try:
        verify(**json.load(sys.stdin))
    except Exception as error:  # MONAI wraps it in one for each component that it passed through
        traceback.print_exc()
        first: BaseException = error
        while first.__cause__ or first.__context__:
            first = first.__cause__ or first.__context__ or first
        sys.exit(f"{type(first).__name__}: {' '.join(str(first).split())}")
