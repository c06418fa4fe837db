"""A small model that does seven measurable things, with the data and the training behind it."""
