"""One page that shows what an evaluation found, in one file that needs no network."""

from ldseg_monai.evaluation.report.handler import Report

__all__ = ["Report"]
