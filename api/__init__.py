"""The online side: HTTP and the serving engine."""
