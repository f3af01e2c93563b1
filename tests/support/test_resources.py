"""How much memory there is, by the files of the system or the environment, and what is refused for want of it."""

import numpy as np
import pytest
import torch

from ddim_ode.errors import DDIMError
from ddim_ode.support import resources
from ddim_ode.support.resources import allocating, allowed, available, check_memory, room, size
from tests.helpers.assertions import one_line

NEED = 49_152_000_000  # a million samples of (3, 64, 64) in float32


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A system of our own: files by name, below proc/ and cgroup/."""
    monkeypatch.delenv(resources.VARIABLE, raising=False)
    monkeypatch.setattr(resources, "PROC", tmp_path / "proc")
    monkeypatch.setattr(resources, "CGROUPS", tmp_path / "cgroup")

    def write(**files: str) -> None:
        for name, text in files.items():
            file = tmp_path / name.replace("__", "/").replace("0", ".")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    return write


MEMINFO = "MemTotal:       20000000 kB\nMemFree:         1000000 kB\nMemAvailable:   12000000 kB\n"


def test_it_is_what_the_machine_has_available(machine):
    machine(proc__meminfo=MEMINFO)
    assert available() == 12_000_000 * 1024


@pytest.mark.parametrize("place", ["cgroup__jobs__mine__", "cgroup__jobs__", "cgroup__"])
def test_a_group_of_version_2_has_its_limit_less_what_it_uses(machine, place):
    machine(proc__meminfo=MEMINFO, proc__self__cgroup="0::/jobs/mine\n")
    files = {"memory0max": "3000000000\n", "memory0current": "1000000000\n"}
    machine(**{place + name: text for name, text in files.items()})
    assert available() == 2_000_000_000
    machine(**{place + "memory0stat": "anon 5\ninactive_file 400000000\nactive_file 7\n"})
    assert available() == 2_400_000_000  # files that are only kept for speed


def test_a_group_of_version_1_likewise(machine):
    machine(proc__meminfo=MEMINFO, proc__self__cgroup="9:cpu,cpuacct:/x\n4:memory:/mine\n")
    place = "cgroup__memory__mine__memory0"
    machine(**{place + "limit_in_bytes": "5000000", place + "usage_in_bytes": "2000000"})
    machine(**{place + "stat": "inactive_file 9\ntotal_inactive_file 500000\n"})
    assert available() == 3_500_000


def test_a_group_without_a_limit_is_none(machine):
    machine(proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n")
    machine(cgroup__memory0max="max\n", cgroup__memory0current="1000\n")
    assert available() == 12_000_000 * 1024


def test_another_system_says_what_it_has_or_nothing(machine, monkeypatch):
    monkeypatch.setattr(resources.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available() == 4_096_000
    monkeypatch.delattr(resources.os, "sysconf")
    assert available() is None
    check_memory(NEED, "x", "ask for fewer", DDIMError)


def test_here_it_is_a_plausible_number():
    assert 10**7 < (available() or 10**8) < 10**15


def test_what_does_not_fit_is_refused_with_the_numbers(machine):
    machine(proc__meminfo=MEMINFO)
    check_memory(12_000_000 * 1024, "x", "ask for fewer at a time", DDIMError)
    assert one_line(DDIMError, check_memory, NEED, "x of 1,000,000 samples", "ask for fewer at a time", DDIMError) == (
        "x of 1,000,000 samples would take 49.2 GB of memory, and 12.3 GB are free; ask for fewer at a time"
        ", or set DDIM_ODE_MEMORY=50G to allow it"
    )


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ("64G", 64e9),
        ("500M", 5e8),
        ("1.5 g", 1.5e9),
        ("2T", 2e12),
        ("64GB", 64e9),
        ("1GiB", 2**30),
        ("12k", 12e3),
        ("1024", 1024),
        ("unlimited", None),
        ("Unlimited ", None),
    ],
)
def test_an_amount_in_the_environment(given, count):
    assert allowed(given, DDIMError) == count


@pytest.mark.parametrize("given", ["lots", "-1G", "1X", "G", "1e9", "64G64G", "nan", "0x10", "\n"])
def test_no_amount_is_refused(given):
    assert "is no amount of memory; write it as in 64G, 500M or unlimited" in one_line(
        DDIMError, allowed, given, DDIMError
    )


def test_the_environment_has_the_last_word(machine, monkeypatch):
    machine(proc__meminfo=MEMINFO)
    for allows in ("60G", "unlimited"):
        monkeypatch.setenv(resources.VARIABLE, allows)
        check_memory(NEED, "x", "ask for fewer", DDIMError)
    monkeypatch.setenv(resources.VARIABLE, "1k")
    line = one_line(DDIMError, check_memory, 1001, "x", "ask for fewer", DDIMError)
    assert (
        line
        == "x would take 1 kB of memory, and 1 kB are allowed; ask for fewer, or set DDIM_ODE_MEMORY=1G to allow it"
    )


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (49.152e9, "49.2 GB"),
        (5e8, "500 MB"),
        (12e12, "12,000 GB"),
        (1e30, "1.0e+21 GB"),
    ],
)
def test_sizes_for_people(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    "most", [lambda: torch.empty(2**60, dtype=torch.uint8), lambda: np.empty(2**60, dtype=np.uint8)]
)
def test_what_the_allocator_refuses_is_the_same_error(most):
    def go():
        with allocating(2**60, "x", "ask for fewer", DDIMError):
            most()

    expected = "x would take 1.2e+09 GB of memory, which the system does not give; ask for fewer"
    assert one_line(DDIMError, go) == expected


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x")])
def test_another_failure_stays_what_it_is(error):
    def go():
        with room(10, "x", "ask for fewer", DDIMError):
            raise error

    with pytest.raises(type(error)) as caught:
        go()
    assert caught.value is error


def test_a_want_of_memory_passes(monkeypatch):
    monkeypatch.setenv(resources.VARIABLE, "1K")
    with pytest.raises(DDIMError) as wanted:
        check_memory(NEED, "x", "use fewer", DDIMError)
    with pytest.raises(DDIMError) as refused, allocating(NEED, "x", "use fewer", DDIMError):
        raise MemoryError
    assert wanted.value.passing
    assert refused.value.passing
    assert not DDIMError("of a value").passing
