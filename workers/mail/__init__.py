"""Mails to people: what they say, and the loop that sends them."""
