"""One shop's models: from the log of its events to the rows that serve, file to file, and how good they are."""
