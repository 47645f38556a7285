"""One page that shows what an evaluation found, in a file that a browser opens without a network."""

from ldseg_monai.evaluation.report.handler import Report

__all__ = ["Report"]
