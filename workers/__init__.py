"""Everything heavy or asynchronous."""
