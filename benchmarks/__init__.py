"""Programs that measure; each prints a table and JSON. `python -m benchmarks` runs all."""
