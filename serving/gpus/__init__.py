"""Devices of a cluster: what nodes offer, what a pod asks for, what is free for a candidate.

All of it is pure; `serving.targets` asks the cluster, and `serving.controller` acts. See
docs/gpus.md.
"""
