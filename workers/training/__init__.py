"""Training of what Kindred serves: arrays in, artefacts out.

`behaviour` runs in every worker; `image_encoder` makes the pack that is part of Kindred and needs the `train` extra
(torch).
"""
