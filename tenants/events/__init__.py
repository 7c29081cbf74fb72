"""Events: what shoppers did, as shops send it and as it is stored."""
