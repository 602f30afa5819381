"""The folder that `streamflow auth generate` writes: keys of all users of a broker, and the nats-server configuration that knows them.

    DIR/auth.conf                     what the broker includes: all accounts
    DIR/<tenant>/account.conf         one account, with its users and what each may do
    DIR/<tenant>/<flow>/<user>.nk     the seed of one user, a secret: readable by its owner only
    DIR/<tenant>/<flow>/flow.json     the flow that the permissions were made for

Tenants are NATS accounts: nothing that one publishes can reach another, whatever its users may do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from .errors import FlowError, RuntimeFailToStart
from .flow import Graph
from .nkeys import new_key, read_key
from .permissions import Role, User, allowed, users_of
from .settings import BrokerSettings
from .subjects import token

AUTH_FILE = "auth.conf"
_ACCOUNT_FILE, _FLOW_FILE, _SEED = "account.conf", "flow.json", ".nk"
_HEAD = "# Written by `streamflow auth generate`, which writes it again: changes are lost.\n"

S = TypeVar("S", bound=BrokerSettings)


def write(
    folder: Path, tenant: str, graphs: Iterable[Graph], *, roles: Collection[Role] = tuple(Role), renew: bool = False
) -> dict[User, Path]:
    """Make keys for users of `graphs` with one of `roles`, those that have none or with `renew` all, and write the configuration anew.

    Users and flows that are in the folder already stay. Returns the seed file of every user of the tenant. Raises `FlowError`.
    """
    account = folder / token(tenant, "tenant")
    for graph in graphs:
        place = account / token(graph.flow, "flow")
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(place / _FLOW_FILE, json.dumps(graph.to_dict(), indent=1))
        for user in users_of(graph):
            path = account / f"{user.name}{_SEED}"
            if user.role in roles and (renew or not path.exists()):
                _write(path, f"{new_key().seed_text()}\n", mode=0o600)
    known = _flows_in(account)
    users = {user: path for graph in known for user in users_of(graph) if (path := account / f"{user.name}{_SEED}").exists()}
    _write(account / _ACCOUNT_FILE, _account(tenant, users, known))
    includes = sorted(found.parent.name for found in folder.glob(f"*/{_ACCOUNT_FILE}"))
    _write(folder / AUTH_FILE, _HEAD + "accounts {\n" + "".join(f'  include "{name}/{_ACCOUNT_FILE}"\n' for name in includes) + "}\n")
    return users


def settings_for(settings: S, role: Role, flow: str, executor: str = "") -> S:
    """`settings` with the key of one user, when their credentials are a tenant's folder. Raises `RuntimeFailToStart`: no such key."""
    if not settings.broker_credentials or not Path(settings.broker_credentials).is_dir():
        return settings
    user = User(role, flow, executor)
    path = Path(settings.broker_credentials) / f"{user.name}{_SEED}"
    if not path.exists():
        raise RuntimeFailToStart(f"{path}: there is no key for {user.name}; make one with `streamflow auth generate`")
    return settings.model_copy(update={"broker_credentials": str(path)})


def auth_file_of(credentials: str | None) -> Path | None:
    """The broker configuration beside a tenant's folder of keys, None when `credentials` is something else."""
    beside = Path(credentials).resolve().parent / AUTH_FILE if credentials and Path(credentials).is_dir() else None
    return beside if beside is not None and beside.exists() else None


def _flows_in(account: Path) -> list[Graph]:
    found = sorted(account.glob(f"*/{_FLOW_FILE}"))
    try:
        return [Graph.from_dict(json.loads(path.read_text(encoding="utf-8"))) for path in found]
    except ValueError as error:
        raise FlowError(f"{account}: a {_FLOW_FILE} in it is damaged: {error}") from error


def _account(tenant: str, users: dict[User, Path], graphs: Sequence[Graph]) -> str:
    lines = [_HEAD, f"{json.dumps(tenant)} {{\n  jetstream: enabled\n  users: [\n"]
    for user, path in users.items():
        key = read_key(path)
        may = allowed(user, graphs, key.inbox_prefix)
        lines.append(f"    # {user.name}\n    {{nkey: {key.public}, permissions: {{\n")
        lines.append(f"      publish: {{allow: {_listed(may.publish)}}}\n      subscribe: {{allow: {_listed(may.subscribe)}}}\n    }}}}\n")
    return "".join([*lines, "  ]\n}\n"])


def _listed(subjects: Iterable[str]) -> str:
    return "[\n" + "".join(f"        {json.dumps(subject)}\n" for subject in subjects) + "      ]"


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    """Whole or not at all, and never readable by others for a moment."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)
