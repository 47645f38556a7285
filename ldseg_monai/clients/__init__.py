"""What programs that use bundles need on our side.

A module for one program's apps needs that program's package.
"""

from ldseg_monai.clients.weights import loads_weights, start_weights, weights_path

__all__ = ["loads_weights", "start_weights", "weights_path"]
