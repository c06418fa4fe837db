"""Pipelines that run by themselves: on this machine, or as recurring runs of a cluster."""
