"""The tables. A change here needs a revision in `migrations/versions` and its name in `revisions.py`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={  # names for all, so that migrations can address them on every database
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

environments = Table(
    "environments",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("web_suffix", String(64), nullable=False),
    Column("created_at", Double, nullable=False),  # seconds since the epoch, as all times here
    UniqueConstraint("web_suffix"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("digest", String(64), nullable=False),  # SHA-256 of the secret, in hex
    Column("environment", String(64), nullable=True),  # NULL: all
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
    Column("last_used_at", Double, nullable=True),
)

apps = Table(
    "apps",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("environment", String(64), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("stopped_at", Double, nullable=True),
    Column("current", Integer, nullable=False),  # the version that is live
    Index("ix_apps_environment_name", "environment", "name"),
)

deployments = Table(
    "deployments",
    metadata,
    Column("app_id", String(64), ForeignKey("apps.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", Double, nullable=False),
    Column("document", Text, nullable=False),  # the specification and the bundle, as wire/spec.py writes them; sealed
    Column("digest", String(128), nullable=False),  # sealed: what short secrets hash to can be guessed
    Column("tag", Text, nullable=True),
    Column("rollback_of", Integer, nullable=True),
)

calls = Table(
    "calls",
    metadata,
    Column("position", Integer, primary_key=True),  # the order of acceptance
    Column("id", String(64), nullable=False),
    Column("app_id", String(64), nullable=False),  # of an ephemeral app, too: no foreign key
    Column("function", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("head", LargeBinary, nullable=False),
    Column("client", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_size", BigInteger, nullable=False),
    Column("body_file", String(128), nullable=True),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", Double, nullable=True),
    Column("finished_at", Double, nullable=True),
    Column("status", Integer, nullable=True),  # from here on: what it came to
    Column("code", String(64), nullable=True),
    Column("lines", LargeBinary, nullable=True),
    Column("result", LargeBinary, nullable=True),
    Column("result_size", BigInteger, nullable=True),
    Column("result_file", String(128), nullable=True),
    UniqueConstraint("id"),
    Index("ix_calls_state_app_id_function_position", "state", "app_id", "function", "position"),
    Index("ix_calls_finished_at", "finished_at"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("environment", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("variables", Text, nullable=False),  # a JSON object; sealed
)

proofs = Table(
    "proofs",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one
    Column("sealed", Text, nullable=False),  # opens with the key that all sealed entries were sealed with
)

proxy_tokens = Table(
    "proxy_tokens",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),  # SHA-256 of its secret, in hex: nobody guesses 131 bits
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=True),
    Column("last_used_at", Double, nullable=True),  # written some time after the use
    Column("environments", Text, nullable=False),  # JSON arrays of names; empty: all
    Column("endpoints", Text, nullable=False),
    Column("rate_limit", Double, nullable=True),
)

policies = Table(
    "policies",
    metadata,
    Column("environment", String(64), primary_key=True),  # "": all, as for the next two
    Column("app", String(64), primary_key=True),
    Column("function", String(128), primary_key=True),
    Column("setting", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

domains = Table(
    "domains",
    metadata,
    Column("name", String(255), primary_key=True),  # "api.example.com" or "*.example.com", in ASCII
    Column("created_at", Double, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("certificate_state", String(32), nullable=True),  # the last news of a certificate for it; NULL: none yet
    Column("certificate_detail", Text, nullable=True),
    Column("certificate_at", Double, nullable=True),
)
