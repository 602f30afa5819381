"""docs/coming-from-jina.md says what `streamflow doctor` says, and names only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import streamflow
from streamflow.cli.app import COMMANDS
from streamflow.config.check import REFUSED
from streamflow.config.models import EFFECT, ExecutorArguments
from streamflow.doctor.advice import GATEWAYS, MODULES

ROOT = Path(__file__).resolve().parents[2]

PAGE = (ROOT / "docs" / "coming-from-jina.md").read_text("utf-8")


def test_every_rule_of_the_doctor_is_on_the_page() -> None:
    for word in (
        "jinahub://",
        "jinaai://",
        "from_hub",
        "DocumentArray",
        "uses_before",
        "uses_after",
        "timeout_send",
        "retries",
        "JINA_LOG_LEVEL",
    ):
        assert word in PAGE
    assert all(module in PAGE for module in MODULES)
    assert any(name in PAGE for name in GATEWAYS)
    assert {"uses_before", "uses_after"} <= set(REFUSED)


def test_every_name_to_import_is_there() -> None:
    for names in re.findall(r"`from streamflow import ([A-Za-z_, ]+)", PAGE):
        for name in filter(None, re.split(r"[, ]+", names)):
            assert name in streamflow.__all__, name


def test_every_command_is_there() -> None:
    named = set(re.findall(r"streamflow ([a-z]+)", PAGE)) - {"import", "gateway", "executor"}
    assert named <= set(COMMANDS), named - set(COMMANDS)


def test_every_key_that_has_no_effect_has_none() -> None:
    for key in ("timeout_ctrl", "grpc_channel_options", "port_monitoring", "jcloud"):
        extra = ExecutorArguments.model_fields[key].json_schema_extra
        assert isinstance(extra, dict) and EFFECT in extra, key
