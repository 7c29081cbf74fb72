"""One file per public resource: its structs and handlers together, no SQL."""
