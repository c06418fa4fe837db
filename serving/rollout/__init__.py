"""The rollout: what is decided about a candidate, and why. Nothing here does I/O.

`evidence` holds what was seen, `eprocess` and `judge` weigh it, `state` is what survives a restart,
`decide` says what to do next, and `step` joins them: one pure function from what is recorded and
what was observed to what is recorded and done.
"""
