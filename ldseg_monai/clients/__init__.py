"""Programs that use bundles and need code on our side; each needs its own package."""
