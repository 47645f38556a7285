"""What programs that use bundles need on our side; a module for one program's apps needs its package."""

from ldseg_monai.clients.weights import loads_weights, weights_path

__all__ = ["loads_weights", "weights_path"]
