"""What a tenant is and owns; all SQL over tenant data."""
