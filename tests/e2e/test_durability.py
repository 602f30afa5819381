"""A flow that promises fsync: its own broker writes through, and `streamflow doctor` proves it."""

from __future__ import annotations

from .programs import Programs, broker_of, flow_file, step


def test_the_promise_of_a_flow_file_reaches_its_own_broker(programs: Programs) -> None:
    served, _ = programs.flow(flow_file(programs.folder, "careful", [step("work")], durability="fsync"))
    doctor = programs.streamflow("doctor", "--broker", broker_of(served), "--durability", "fsync")
    assert doctor.wait() == 0, doctor.output
    assert "durability: fsync, proven by http://127.0.0.1:" in doctor.output
    assert "streams and consumers are as deployed" in doctor.output
