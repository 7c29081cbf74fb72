"""How good recommendations are, with how sure that is: files or a shop's own events in, a metric card out."""
