"""How fast a tenant, a key or a stranger may ask: one limit over all API processes, decided in each of them."""
