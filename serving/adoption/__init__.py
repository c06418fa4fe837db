"""How an InferenceService of others becomes a stable version, and how one is given back.

`adopt` and `leave` are pure: from what is there to the writes that are left to do. `act` does them.
Asking again goes on from what is there then.
"""
