"""What apps of MONAI Label add for our bundles: which image is next, and where its mask lies.

For its apps alone, since it needs monailabel.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import numpy as np
from monai.data import MetaTensor
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.epistemic import Epistemic
from monailabel.tasks.infer.bundle import BundleInferTask

from ldseg_monai.data.client_results import KEEPS_FORMS
from ldseg_monai.data.formats.kinds import NIFTI_ENDINGS
from ldseg_monai.data.writers import FormsWriter
from ldseg_monai.networks.matching import check_weights
from ldseg_monai.networks.weights import read_state
from ldseg_monai.runtime.errors import InputError

NUM_SAMPLES = 5

logger = logging.getLogger(__name__)
App = TypeVar("App", bound=type[MONAILabelApp])


class UncertaintyScoring(ScoringMethod):
    """Write the uncertainty of each image without a final label into the datastore.

    It goes into the information on the image. An image that was scored by the same weights is
    passed over.

    Args:
        infer_task: MONAI Label's task of a bundle whose inference returns an ``uncertainty``, by
            `SummarizeUncertaintyd`.
        key: name of the number in the information on an image; ``KEY_ts`` is the time of the
            weights.
    """

    def __init__(self, infer_task: BundleInferTask, key: str) -> None:
        super().__init__(
            f"Uncertainty of an image by the spread of several samples - {infer_task.description}"
        )
        self.infer_task = infer_task
        self.key = key

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, int]:
        """Score the images.

        Args:
            request: what MONAI Label's client asks for. ``num_samples`` are drawn of each image
                (default: the bundle's, at least 5); the rest, such as ``device``, is passed on to
                the inference.
            datastore: of the images.

        Returns:
            How many images there were without a final label (``total``), were ``executed`` and
            ``skipped``.

        Raises:
            ValueError: for fewer than two samples, which have no spread.
        """
        num_samples = int(
            request.get("num_samples", max(NUM_SAMPLES, self.infer_task.config()["num_samples"]))
        )
        if num_samples < 2:
            raise InputError(
                f"num_samples is {num_samples}: expected 2 or more, whose spread is the uncertainty"
            )
        weights_time = int(os.stat(self.infer_task.get_path()).st_mtime)
        images = datastore.get_unlabeled_images()
        todo = [
            name
            for name in images
            if datastore.get_image_info(name).get(f"{self.key}_ts") != weights_time
        ]
        for name in todo:
            image = {
                "image": datastore.get_image_uri(name),
                "num_samples": num_samples,
                "result_write_to_file": False,
            }
            _, result = self.infer_task({"logging": "error", **request, **image})
            datastore.update_image_info(
                name, {self.key: result["uncertainty"], f"{self.key}_ts": weights_time}
            )
            logger.info("%s of %s: %.4f", self.key, name, result["uncertainty"])
        return {"total": len(images), "executed": len(todo), "skipped": len(images) - len(todo)}


def with_uncertainty(app: App) -> App:
    """Give an app a scoring method and a strategy for each of its bundles with samples.

    Both are called ``NAME_uncertainty``. The strategy picks the image without a final label of
    which the bundle is most uncertain, among those that it has not picked lately.

    Example::

        @with_uncertainty
        class MyApp(MONAILabelApp):
            ...

    Args:
        app: class of the app, such as `MyApp` in the file main.py of MONAI Label's monaibundle.

    Returns:
        The same class.
    """
    init_strategies, init_scoring_methods = app.init_strategies, app.init_scoring_methods

    def tasks(self: MONAILabelApp) -> dict[str, BundleInferTask]:
        """The tasks of bundles with samples, by the name of their uncertainty."""
        bundles = {
            name: task for name, task in self._infers.items() if isinstance(task, BundleInferTask)
        }
        return {
            f"{name}_uncertainty": task
            for name, task in bundles.items()
            if "num_samples" in task.config()
        }

    def strategies(self: MONAILabelApp) -> dict[str, Strategy]:
        ours = {
            key: Epistemic(key=key, desc=f"Most uncertain image first, by {key}")
            for key in tasks(self)
        }
        return {**init_strategies(self), **ours}

    def scoring_methods(self: MONAILabelApp) -> dict[str, ScoringMethod]:
        ours = {key: UncertaintyScoring(task, key) for key, task in tasks(self).items()}
        return {**init_scoring_methods(self), **ours}

    app.init_strategies, app.init_scoring_methods = strategies, scoring_methods
    return app


def with_image_forms(app: App) -> App:
    """Let an app's bundles write NIfTI masks with the very forms of their images.

    Beside `write_image_forms`, each gets `name_weights`, and requests come `in_turn`.

    MONAI Label's own writer (0.8.5) knows one affine, and writes it as both forms. Where an image's
    sform and qform differ, programs that use the other one see its mask beside it. MONAI Label asks
    a bundle for no writer, so an app has to.

    Args:
        app: class of the app, as of `with_uncertainty`.

    Returns:
        The same class.
    """
    init_infers = app.init_infers

    def infers(self: MONAILabelApp) -> dict[str, Any]:
        tasks: dict[str, Any] = init_infers(self)
        for task in tasks.values():
            if isinstance(task, BundleInferTask):
                write_image_forms(task)
                name_weights(task)
        return tasks

    app.init_infers = infers
    app.infer = in_turn(app.infer)
    return app


def in_turn(infer: Callable[..., Any]) -> Callable[..., Any]:
    """Let requests to an app's ``infer`` that come at once wait for each other.

    A task has one config, into which each request writes its options (MONAI Label 0.8.5): two at
    once, which ``MONAI_LABEL_INFER_CONCURRENCY`` allows, get each other's.
    """
    turn = threading.Lock()

    @wraps(infer)
    def infer_in_turn(*args: Any, **kwargs: Any) -> Any:
        with turn:
            return infer(*args, **kwargs)

    return infer_in_turn


def write_image_forms(task: BundleInferTask) -> None:
    """Let a task write its masks with the forms, codes and units of their images: `FormsWriter`."""
    write_plain = task.writer

    def write(
        data: dict[str, Any], extension: str | None = None, dtype: Any = None
    ) -> tuple[Any, Any]:
        path, result = write_plain(data, extension, dtype)  # a file with the ending that is asked
        mask, image = data[task.output_label_key], data.get("image")
        is_nifti = isinstance(path, str) and path.lower().endswith(NIFTI_ENDINGS)
        if is_nifti and isinstance(image, MetaTensor):
            writer = FormsWriter(output_dtype=np.uint8)
            writer.set_data_array(mask, channel_dim=0 if mask.ndim == 4 else None)
            writer.set_metadata(mask.meta if isinstance(mask, MetaTensor) else image.meta)
            writer.write(path)
        return path, result

    prepare_plain = task.pre_transforms

    def prepare(data: dict[str, Any] | None = None) -> Any:
        if data is not None:
            data[KEEPS_FORMS] = True
        return prepare_plain(data)

    task.writer = write
    task.pre_transforms = prepare


def name_weights(task: BundleInferTask) -> None:
    """Let a task whose weights cannot be loaded say which file that is, and why."""
    network_plain = task._get_network

    def network(device: str, data: dict[str, Any]) -> Any:
        try:
            return network_plain(device, data)
        except Exception:  # torch raises many kinds
            path = task.get_path()
            name = (data or {}).get("model_filename")
            other = os.path.join(os.path.dirname(path), name) if isinstance(name, str) else ""
            used = other if os.path.isfile(other) else path
            state = read_state(used, "cpu")
            check_weights(state.get(task.model_state_dict, state), task.network, used)
            raise

    task._get_network = network
