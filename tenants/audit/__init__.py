"""The audit log: who changed what, when and from where; only ever added to, and sealed into a chain of hashes."""
