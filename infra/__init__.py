"""Everything out of process, and how it is deployed."""
