"""The demo shop: products drawn by code, described in several languages."""
