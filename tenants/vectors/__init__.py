"""Vectors: the encode queue and what it fills, generations of spaces, and the shards of large tenants."""
