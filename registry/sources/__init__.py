"""Data sets from where they are kept, as JSONL files on this machine, known by their digests."""
