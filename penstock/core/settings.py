"""Where this installation's parts are. Read once, at the edge, then passed down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core.errors import ConfigurationError

PUBLIC_HUB = "https://huggingface.co"
GATEWAY_PORT = 8480


@dataclass(frozen=True, slots=True)
class Settings:
    """Endpoints, folders and identities the operator owns."""

    home: Path
    """`PENSTOCK_HOME`: store, runs, local cluster and default MLflow database."""

    hub_endpoint: str = PUBLIC_HUB
    """`HF_ENDPOINT`: the Hub or a mirror of it."""

    hub_token: str | None = field(default=None, repr=False)
    """`HF_TOKEN`: opens gated repositories. Never printed."""

    tracking_uri: str = ""
    """`MLFLOW_TRACKING_URI`: MLflow server or database; default: SQLite under `home`."""

    experiment: str = "penstock"
    """`MLFLOW_EXPERIMENT_NAME`: runs stand under `EXPERIMENT/MODEL`; a team has its own."""

    joined_run_id: str | None = None
    """`MLFLOW_RUN_ID`: a run somebody else opened (KFP's MLflow plugin); joined, never doubled."""

    run_id: str = "adhoc"
    """`PENSTOCK_RUN_ID`: which run the steps of this process belong to."""

    gateway_port: int = GATEWAY_PORT
    """`PENSTOCK_GATEWAY_PORT`: where the local gateway listens on 127.0.0.1."""

    s3_endpoint: str = ""
    """`AWS_ENDPOINT_URL`: an S3 store that is not AWS's, for pods too."""

    s3_region: str = ""
    """`AWS_DEFAULT_REGION`."""

    storage_secret: str = ""
    """`PENSTOCK_STORAGE_SECRET`: Secret with which pods fetch checkpoints, by name."""

    render: Path | None = None
    """`PENSTOCK_RENDER`: folder that a cluster's objects are written into, instead of to it."""

    @property
    def own_registry(self) -> bool:
        """Whether the registry is this home's own database: nobody named another."""
        return self.tracking_uri == _own_registry(self.home)

    @property
    def store(self) -> Path:
        """The content-addressed store of checkpoints."""
        return self.home / "store"

    @property
    def run_dir(self) -> Path:
        """Step records, logs and report of this run."""
        return self.home / "runs" / self.run_id

    @property
    def cluster(self) -> Path:
        """Database, sockets and logs of the local cluster."""
        return self.home / "cluster"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Build from environment variables; an unusable value is named."""
        home = Path(env.get("PENSTOCK_HOME") or Path.home() / ".penstock").expanduser().absolute()
        port = env.get("PENSTOCK_GATEWAY_PORT") or str(GATEWAY_PORT)
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigurationError(f"PENSTOCK_GATEWAY_PORT: found {port!r}; allowed: 1 to 65535")
        return cls(
            home=home,
            hub_endpoint=(env.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/"),
            hub_token=env.get("HF_TOKEN") or None,
            tracking_uri=env.get("MLFLOW_TRACKING_URI") or _own_registry(home),
            experiment=env.get("MLFLOW_EXPERIMENT_NAME") or "penstock",
            joined_run_id=env.get("MLFLOW_RUN_ID") or None,
            run_id=env.get("PENSTOCK_RUN_ID") or "adhoc",
            gateway_port=int(port),
            s3_endpoint=env.get("AWS_ENDPOINT_URL") or "",
            s3_region=env.get("AWS_DEFAULT_REGION") or "",
            storage_secret=env.get("PENSTOCK_STORAGE_SECRET") or "",
            render=Path(env["PENSTOCK_RENDER"]).absolute() if env.get("PENSTOCK_RENDER") else None,
        )


def _own_registry(home: Path) -> str:
    return f"sqlite:///{home}/mlflow.db"
