"""How one version of a model is reached alone, wherever it is served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from serving.headers import SERVICE


class Door(NamedTuple):
    """A base URL, and the headers that its requests need."""

    url: str
    headers: Mapping[str, str]


class Doors(Protocol):
    """The ways to the versions of one model."""

    @property
    def hint(self) -> str:
        """The next step for a person when nothing answers."""
        ...

    def version(self, service: str) -> Door:
        """Return the way to one version, whatever its weight; what goes there is a replay."""
        ...

    def alive(self) -> Door:
        """Return what answers GET with success while the versions can be reached at all."""
        ...


@dataclass(frozen=True, slots=True)
class GatewayDoors:
    """The local gateway's: a header names the version."""

    url: str
    hint: str = "penstock local status"

    def version(self, service: str) -> Door:
        """Return the gateway, with the version's name."""
        return Door(self.url, {SERVICE: service})

    def alive(self) -> Door:
        """Return the gateway's health."""
        return Door(f"{self.url}/healthz", {})
