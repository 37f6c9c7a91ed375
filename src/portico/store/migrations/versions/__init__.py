"""The revisions of the schema, one file each. Released ones are never edited."""
