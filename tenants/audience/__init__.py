"""Shoppers: users and visitors, their numbers, merges, segments, and their erasure."""
