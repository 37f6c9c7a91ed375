"""Bytes: what travels between processes, as structs and their encodings. Does no I/O."""
