"""How the pack kindred-image-v1 was made, and can be made again."""
