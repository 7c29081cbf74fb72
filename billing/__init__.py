"""What a tenant may do, and how much of it."""
