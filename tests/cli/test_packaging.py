"""The container and the system service say what the program does."""

import configparser
import json
import re
import shlex

import pytest
import yaml

from scp.config.schema import LimitsSection
from tests.cli.conftest import Dcmpress
from tests.conftest import REPOSITORY

SHUTDOWN_SECONDS = LimitsSection().drain_seconds + 5 + 30
"""Open associations and what they still write, then the coordinator with its deliveries."""


def dockerfile() -> dict[str, str]:
    """The last of each instruction."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split(maxsplit=1) for line in lines)


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(REPOSITORY / "packaging" / "dcmpress.service")
    return parser


def test_the_container_is_healthy_while_its_node_answers(dcmpress: Dcmpress) -> None:
    options, command = dockerfile()["HEALTHCHECK"].split("CMD ")

    assert json.loads(command) == ["dcmpress", "status", "--running"]
    assert set(re.findall(r"--([a-z-]+)=", options)) == {"interval", "timeout", "start-period"}
    assert "--running" in dcmpress("status", "--help")


def test_the_container_runs_the_node_as_nobody_special_and_stops_it_in_order() -> None:
    instructions = dockerfile()

    assert json.loads(instructions["ENTRYPOINT"]) + json.loads(instructions["CMD"]) == [
        "dcmpress",
        "serve",
    ]
    assert instructions["USER"] == "dcmpress"
    assert instructions["STOPSIGNAL"] == "SIGTERM"
    assert instructions["VOLUME"] == f"{instructions['WORKDIR']}/data"


def test_compose_keeps_the_data_and_waits_for_the_shutdown() -> None:
    service = yaml.safe_load((REPOSITORY / "compose.yaml").read_text())["services"]["dcmpress"]

    assert service["volumes"] == [f"data:{dockerfile()['VOLUME']}"]
    assert service["ports"] == [f"{port}:{port}" for port in [dockerfile()["EXPOSE"]]]
    assert int(service["stop_grace_period"].removesuffix("s")) > SHUTDOWN_SECONDS


def test_the_service_waits_for_the_shutdown_and_leaves_a_faulty_configuration_alone() -> None:
    service = unit()["Service"]

    assert int(service["TimeoutStopSec"]) > SHUTDOWN_SECONDS
    assert service["KillSignal"] == "SIGTERM"
    assert service["RestartPreventExitStatus"] == "2"


def test_the_service_runs_a_command_that_there_is(
    dcmpress: Dcmpress, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(unit()["Service"]["ExecStart"])

    assert program.endswith("/bin/dcmpress")
    assert arguments[:2] == ["serve", "-c"]
    assert arguments[2] == unit()["Unit"]["ConditionPathExists"]
    assert "cannot be read" in dcmpress(*arguments, code=2)
