"""Finds checkpoints that some engine would load without a word, and run wrongly.

Nothing here loads weights: headers, JSON files and the small scale tensors say enough. What the
files of a repository may contain (pickles, code, licences) is the business of `registry.scans`.
"""

from registry.conformance.findings import ENGINES, Finding
from registry.conformance.inspection import broken, inspect, require

__all__ = ["ENGINES", "Finding", "broken", "inspect", "require"]
