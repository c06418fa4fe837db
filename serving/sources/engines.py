"""What engines export, in the words of the gateway's counters.

Penstock's CPU engine counts users' requests as the gateway does. vLLM counts every request, so its
numbers are users' while nothing is replayed, as on the ramp; its histograms are coarse, and a
difference that stays inside one bucket is not seen. Source: vLLM's `v1/metrics/loggers.py` and
prometheus-fastapi-instrumentator's `http_requests_total`, which groups status codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from serving.sources.counters import Sample
from serving.usermetrics import ENGINE, GATEWAY

_VLLM = {
    "vllm:time_to_first_token_seconds_bucket": "time_to_first_token_seconds_bucket",
    "vllm:request_time_per_output_token_seconds_bucket": "time_per_output_token_seconds_bucket",
    "process_start_time_seconds": "start_time_seconds",
}
_HTTP = "http_requests_total"


def canonical(samples: Iterable[Sample], name: str, service: str, half: str) -> list[Sample]:
    """Return an engine's scrape as the gateway would have counted it.

    Args:
        samples: Of one process.
        name: The model's.
        service: The version it serves.
        half: Of the version's replicas; empty for none.
    """
    labels = {"name": name, "service": service, "half": half}
    scrape = list(samples)
    if any(sample.name.startswith(ENGINE) for sample in scrape):
        found = _own(scrape)
    else:
        found = _vllm(scrape)
    return [
        Sample(f"{GATEWAY}_{series}", {**labels, **more}, value) for series, more, value in found
    ]


def _own(scrape: Iterable[Sample]) -> Iterator[tuple[str, dict[str, str], float]]:
    for sample in scrape:
        if sample.name.startswith(ENGINE):
            more = {key: sample.labels[key] for key in ("le", "code") if key in sample.labels}
            yield sample.name.removeprefix(f"{ENGINE}_"), more, sample.value


def _vllm(scrape: Iterable[Sample]) -> Iterator[tuple[str, dict[str, str], float]]:
    for sample in scrape:
        if sample.name in _VLLM:
            more = {"le": sample.labels["le"]} if "le" in sample.labels else {}
            yield _VLLM[sample.name], more, sample.value
        elif sample.name == _HTTP and sample.labels.get("handler", "").startswith("/v1/"):
            code = sample.labels.get("status", "")
            yield "requests_total", {"code": code}, sample.value
            yield "draws_total", {}, sample.value
            if code.startswith("5"):
                yield "failures_total", {}, sample.value
