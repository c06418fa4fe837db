"""A cluster on this machine: objects in SQLite, processes instead of pods, a gateway."""
