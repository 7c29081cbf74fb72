"""The work of the workers: one file per kind."""
