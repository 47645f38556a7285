"""Scores on real data: `python -m benchmarks.accuracy.PROGRAM bundles/NAME --dataset_dir DIR`."""
