"""A tenant as one file: all that it has, to be read, kept, and restored on another installation."""
