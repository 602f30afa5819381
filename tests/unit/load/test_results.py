from pathlib import Path

import pytest

from load import report
from load.profiles import AIMS, PROFILES
from load.results import Result, Sample, latest, load, save
from load.runner import DRIVERS, Options, _chosen
from load.targets import TARGETS


def result(profile: str = "echo-http", started: str = "2026-01-01T00:00:00Z", **rps: list[float]) -> Result:
    made = Result(profile, started, "abc", {"cores": 2}, {"seconds": 3.0})
    for target, rounds in rps.items():
        made.samples += [Sample(profile, "c=64", target, number, {"rps": value}) for number, value in enumerate(rounds)]
    return made


def test_a_ratio_is_between_medians() -> None:
    made = result(streamflow=[100.0, 9000.0, 1100.0], jina=[90.0, 100.0, 5000.0])
    assert made.ratio("c=64", "streamflow", "jina", "rps") == 11.0


def test_a_ratio_needs_both_sides() -> None:
    assert result(jina=[100.0]).ratio("c=64", "streamflow", "jina", "rps") is None


def test_results_survive_the_file(tmp_path: Path) -> None:
    made = result(streamflow=[1.0], jina=[2.0])
    made.failures["mosec"] = "not installed"
    assert load(save(made, tmp_path)) == made


def test_the_newest_result_of_a_profile_counts(tmp_path: Path) -> None:
    paths = [save(result(started=f"2026-01-0{day}T00:00:00Z", jina=[float(day)]), tmp_path) for day in (2, 3, 1)]
    assert latest(paths)["echo-http"].median("c=64", "jina", "rps") == 3.0


def test_another_format_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 99}')
    with pytest.raises(ValueError, match="x.json is not a result file"):
        load(tmp_path / "x.json")


@pytest.mark.parametrize(("ours", "verdict"), [(1000.0, True), (999.0, False)])
def test_an_aim_is_judged_by_the_ratio(ours: float, verdict: bool) -> None:
    judged = report.aims({"echo-http": result(streamflow=[ours], jina=[100.0])})
    first = next(aim for aim in judged if (aim["profile"], aim["case"], aim["peer"]) == ("echo-http", "c=64", "jina"))
    assert first["met"] is verdict


def test_only_required_and_measured_aims_can_be_missed() -> None:
    slow = result(streamflow=[10.0], jina=[100.0], mosec=[100.0])
    assert [(aim["profile"], aim["peer"]) for aim in report.missed({"echo-http": slow})] == [("echo-http", "jina")]


def test_lower_is_better_for_times_and_memory() -> None:
    aim = next(aim for aim in AIMS if aim.profile == "cold-start")
    assert aim.met(0.6) and not aim.met(0.61)


def test_tables_print_rounds_ratio_and_what_is_missing() -> None:
    made = result(streamflow=[1000.0, 1200.0, 1100.0], jina=[100.0, 110.0, 90.0])
    made.failures["mosec"] = "not installed"
    text = report.facts(made) + report.figures_table(made) + report.aims_table({"echo-http": made})
    for part in ("1,000, 1,200, 1,100", "11.00x", "mosec could not be measured: not installed", "commit abc", "not measured"):
        assert part in text


def test_every_profile_has_a_driver_and_known_targets() -> None:
    for profile in PROFILES.values():
        assert profile.driver in DRIVERS
        assert TARGETS.keys() >= set(profile.targets)


def test_every_aim_belongs_to_a_case_of_a_profile_that_measures_the_peer() -> None:
    for aim in AIMS:
        profile = PROFILES[aim.profile]
        assert aim.case in [case.name for case in profile.cases]
        assert aim.peer in profile.targets


def test_a_variant_of_streamflow_stands_in_wherever_streamflow_does() -> None:
    names = [target.name for target in _chosen(PROFILES["echo-grpc-own"], ("streamflow-memory", "jina", "mosec"))]
    assert names == ["streamflow-memory", "jina"]
    assert [target.name for target in _chosen(PROFILES["bulk"], Options().targets)] == ["streamflow", "jina"]
