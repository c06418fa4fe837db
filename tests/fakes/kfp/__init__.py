"""Kubeflow Pipelines' API server, 2.17.0, in this process: v2beta1 over HTTP.

What it answers follows the server's source at that tag, and what a real one was seen to answer. It
validates what it is sent with the server's own models and protobufs. tests/contract/test_kfp.py
runs on it and on a real one (PENSTOCK_TEST_KFP), which keeps it honest.
"""

from tests.fakes.kfp.faults import Fault
from tests.fakes.kfp.server import Double, kfp_server

__all__ = ["Double", "Fault", "kfp_server"]
