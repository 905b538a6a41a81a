"""WHAT A ROW IS MADE OF: bytes and digests, finite or not, work on chunks."""
