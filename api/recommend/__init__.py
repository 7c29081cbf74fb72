"""The serving engine; it imports no web framework."""
