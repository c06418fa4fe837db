"""Submission to Kubeflow Pipelines: a thin, patient client over its v2beta1 API.

`client.connect(settings)` is the way in. What to retry, what an answer means and what a version is
called are pure functions (`refusals`, `states`, `naming`); only `transport` speaks to a server.
"""
