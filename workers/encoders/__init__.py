"""Encoders: texts and photos in, rows of a vector space out."""
