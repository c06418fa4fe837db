"""Penstock: a large language model from the Hub to production, promoted by evidence."""

__version__ = "0.1.0"
