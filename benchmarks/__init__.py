"""Programs that measure: `speed` what a bundle takes, `accuracy` how good it is.

What they found is in `results`.
"""
