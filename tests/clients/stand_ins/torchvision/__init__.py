"""A stand-in, where torchvision cannot be had: see `make test-clients`."""
