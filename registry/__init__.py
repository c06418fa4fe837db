"""What is known of a model: its files, their digests, scans, data checks, versions and passport."""
