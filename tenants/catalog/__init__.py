"""The catalogue: items as shops give them, their rows, photos, imports and the filters over them."""
