"""What this machine is."""

from __future__ import annotations

from cosyvoice_cpu.system.machine import _instruction_sets, describe_machine


def test_this_machine_can_be_described() -> None:
    machine = describe_machine()
    assert 1 <= machine.physical_cores <= machine.usable_cpus <= machine.logical_cpus
    assert machine.packages["onnxruntime"]
    assert machine.cpu in machine.summary()
    assert machine.memory_mb and machine.available_mb
    assert machine.available_mb <= machine.memory_mb


def test_the_features_of_an_arm_processor_have_their_own_names() -> None:
    assert _instruction_sets({"fp", "asimd", "asimddp", "i8mm"}) == {
        "NEON": True,
        "DOT": True,
        "I8MM": True,
        "BF16": False,
    }
    assert _instruction_sets(None) is None
