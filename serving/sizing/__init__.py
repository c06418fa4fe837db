"""How much memory a model needs, what it fits on, and what would fit: pure, and explained.

`shape` reads a model's `config.json` and the headers of its weights, `weights` splits them over
devices, `memory` adds what else lies in a device, `choose` searches. See docs/sizing.md.
"""
