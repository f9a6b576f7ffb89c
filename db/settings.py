"""Settings: what an admin may change. `settings()` is the only reader of the environment (prefix NIGHTREAD_)."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from db.transport import require_private_database, require_private_issuer, require_private_queue

# A Unix socket's path may hold 107 bytes (unix(7)); a longer home gets its socket in a private folder elsewhere.
SOCKET_PATH_LIMIT = 100
MOST_FINDINGS = 9  # one a number key
FINDING_CHARACTERS = 40


class Settings(BaseSettings):
    """Every setting, each with its default; what belongs to a trained model is never here."""

    model_config = SettingsConfigDict(env_prefix="NIGHTREAD_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=lambda: user_data_path("nightread"))
    database_url: str = ""  # empty: SQLite in the home folder
    queue_url: SecretStr = SecretStr("")  # empty: the private server on a Unix socket
    roots: Annotated[tuple[Path, ...], NoDecode] = ()  # empty: any folder that the operator submits

    max_file_mb: int = Field(256, ge=1)
    max_megapixels: int = Field(100, ge=1)
    min_side: int = Field(64, ge=8)  # pixels

    decoders: int = Field(0, ge=0)  # 0: one a core
    decode_memory_mb: int = Field(1300, ge=256)  # address space: 1 GiB of memory in use at most
    decode_seconds: float = Field(10.0, gt=0)  # a file; well below a lease

    # What decoding made of each scan, kept by its content: patients' pictures, 50 kB each. Empty: off.
    prepared_cache: str = ""  # a folder below home, or an absolute path that several machines share
    read_ahead_mb: int = Field(256, ge=0)  # asked of the storage before decoders want it; 0: nothing

    chunk_size: int = Field(64, ge=1, le=4096)  # scans
    engine: Literal["auto", "openvino", "tensorflow", "jax"] = "auto"  # auto: OpenVINO on a CPU, TensorFlow on a GPU
    # Beyond float32 only what the trained model's own parity report allows; auto: the fastest that it does.
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8", "two_stage"] = "auto"
    # At a reduced size only with the codecs that the model's parity report allows; auto: with all of these.
    decode: Literal["auto", "exact", "reduced"] = "auto"
    engine_batch: int = Field(0, ge=0)  # images in one call of the engine; 0: 16 on a CPU, 128 on a GPU
    engine_threads: int = Field(0, ge=0)  # 0: one a core
    lease_seconds: float = Field(30.0, ge=1)
    sweep_seconds: float = Field(5.0, gt=0)
    task_seconds: int = Field(900, ge=10)  # hard limit of one ring's work

    web_host: str = "127.0.0.1"
    web_port: int = Field(8470, ge=0, le=65535)
    web_https: bool = False  # behind a TLS proxy: cookies become Secure
    session_idle_minutes: int = Field(15, ge=1)
    session_hours: int = Field(12, ge=1)
    require_totp: bool = False  # nobody gets further than to enrol an app for one-time passwords
    # Single sign-on: the identity provider's issuer, exactly as it calls itself; empty: there is none (webui/sso.py).
    oidc_issuer: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: SecretStr = SecretStr("")  # empty: a public client, by PKCE alone
    oidc_label: str = Field("hospital account", min_length=1, max_length=60)  # "Sign in with your ..."
    # What a reader may tick besides the verdict: at most nine, by the keys 1 to 9.
    findings: Annotated[tuple[str, ...], NoDecode] = (
        "opacity",
        "consolidation",
        "cavity",
        "nodule",
        "effusion",
        "adenopathy",
        "scar",
        "other",
    )
    web_secret: SecretStr = SecretStr("")  # empty: made once in the home folder
    audit_key: SecretStr = SecretStr("")  # empty: made once in the home folder

    @field_validator("home", mode="after")
    @classmethod
    def _absolute_home(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("roots", mode="before")
    @classmethod
    def _split_roots(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(Path(part).expanduser().absolute() for part in value.split(os.pathsep) if part)
        return value

    @field_validator("findings", mode="before")
    @classmethod
    def _split_findings(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("findings", mode="after")
    @classmethod
    def _few_findings(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > MOST_FINDINGS or len(set(value)) < len(value):
            raise ValueError(f"findings are at most {MOST_FINDINGS} different words, separated by commas")
        if any(len(word) > FINDING_CHARACTERS or not word.isprintable() for word in value):
            raise ValueError(f"a finding is at most {FINDING_CHARACTERS} printable characters")
        return value

    @property
    def database(self) -> str:
        """The SQLAlchemy URL."""
        return self.database_url or f"sqlite:///{self.home / 'nightread.db'}"

    @property
    def is_embedded(self) -> bool:
        """Whether this machine runs on its own: SQLite and the private queue server."""
        return not self.database_url and not self.queue_url.get_secret_value()

    @property
    def queue_socket(self) -> Path:
        """The private queue server's Unix socket, in a folder that only its owner may enter."""
        inside = self.home / "queue" / "queue.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
            return inside
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(f"/tmp/nightread-{os.getuid()}-{name}/queue.sock")  # noqa: S108 (its maker insists on 0700)  # nosec B108

    @property
    def queue(self) -> str:
        """The broker URL as kombu reads it; holds a password where one is configured, so never log it."""
        return self.queue_url.get_secret_value() or f"redis+socket://{self.queue_socket}"

    @property
    def derived(self) -> Path:
        """Folder of review copies, model inputs and heat maps (patient data; rebuilt from the originals)."""
        return self.home / "derived"

    @property
    def prepared(self) -> Path | None:
        """Folder of the prepared cache; None where there is none."""
        return self.home / Path(self.prepared_cache).expanduser() if self.prepared_cache else None


@cache
def settings() -> Settings:
    """The process's settings, read from the environment once. Raises Refused where queue, database or identity
    provider would be spoken to in plaintext beyond this machine."""
    made = Settings()
    require_private_queue(made.queue)
    require_private_database(made.database)
    require_private_issuer(made.oidc_issuer)
    return made
