"""Programs that measure: `speed` what a bundle takes, `accuracy` how good it is; `results` has what they found."""
