"""How fast a caller may ask: decided at the edge, before the body is read, and told with every answer."""
