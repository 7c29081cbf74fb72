"""Training of what Kindred serves; arrays in, artefacts out. Needs the `train` extra (torch)."""
