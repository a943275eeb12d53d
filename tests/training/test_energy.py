"""Energy counters that overflow, and systems without them."""

from striate.training import energy
from striate.training.energy import EnergyMeter


def package(folder, name, counter, limit=1_000_000):
    (folder / name).mkdir(exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{counter}\n")
    (folder / name / "max_energy_range_uj").write_text(f"{limit}\n")


def test_counters_of_all_packages_are_added_and_may_overflow(tmp_path, monkeypatch):
    package(tmp_path, "intel-rapl:0", 900_000)
    package(tmp_path, "intel-rapl:1", 100_000)
    package(tmp_path, "intel-rapl:0:0", 5)  # a part of the first
    meter = EnergyMeter(tmp_path)
    package(tmp_path, "intel-rapl:0", 300_000)  # 400,000 on, past its end
    package(tmp_path, "intel-rapl:1", 150_000)
    package(tmp_path, "intel-rapl:0", 700_000)
    meter.update()  # too soon after the last reading to read them again: this would be another end
    package(tmp_path, "intel-rapl:0", 300_000)
    package(tmp_path, "intel-rapl:1", 250_000)
    assert meter.total() == 0.55
    monkeypatch.setattr(energy, "_SECONDS", 0.0)
    package(tmp_path, "intel-rapl:0", 999_000)
    meter.update()
    package(tmp_path, "intel-rapl:0", 1_000)  # past its end again
    assert meter.total() == 1.251


def test_without_counters_there_is_no_energy(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        meter = EnergyMeter(folder)
        meter.update()
        assert meter.total() is None


def test_a_counter_that_vanishes_ends_the_measurement(tmp_path):
    package(tmp_path, "intel-rapl:0", 1)
    meter = EnergyMeter(tmp_path)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert meter.total() is None
