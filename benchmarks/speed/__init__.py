"""Time and memory, as ratios in one run: `python -m benchmarks.speed.PROGRAM bundles/NAME`."""
