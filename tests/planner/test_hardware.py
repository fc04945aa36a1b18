"""GPUs: the table, and the names that people, Slurm and drivers give them."""

import csv
from pathlib import Path

import pytest

from vendomini.errors import ConfigError
from vendomini.hardware import ambiguous, gpu_named, gpu_of_site, is_slice, known_gpus, usable_gib

DATA = Path(__file__).resolve().parents[2] / "bench" / "data"


def rows(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("A100-80", "A100-80"),
        ("A100-80GB", "A100-80"),
        ("a100_80gb", "A100-80"),
        ("A100 80G", "A100-80"),
        ("A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100 80GB PCIe", "A100-80-PCIe"),
        ("a100-40", "A100-40"),
        ("H100", "H100"),
        ("h100", "H100"),
        ("H100 80GB", "H100"),
        ("H100-PCIe", "H100-PCIe"),
        ("H100 NVL", "H100-NVL"),
        ("V100-32", "V100-32"),
        ("v100-32gb", "V100-32"),
        ("RTX 4090", "RTX-4090"),
        ("rtx4090", "RTX-4090"),
        ("4090", "RTX-4090"),
        ("A6000", "RTX-A6000"),
        ("RTX 6000 Ada", "RTX-6000-Ada"),
        ("Quadro RTX 6000", "Quadro-RTX-6000"),
        ("RTX PRO 6000", "RTX-PRO-6000"),
        ("A10", "A10"),
        ("A10G", "A10G"),
        ("L40", "L40"),
        ("L40S", "L40S"),
        ("T4", "T4"),
        ("MI300X", "MI300X"),
        ("MI325", "MI325X"),
        ("gb200_sxm", "GB200"),
        ("H100-94GB", "H100-NVL"),
        ("80GB-class", "80GB-class"),
        ("GB200", "GB200"),
    ],
)
def test_a_gpu_is_known_by_what_people_call_it(name: str, meant: str) -> None:
    assert gpu_named(name).name == meant


@pytest.mark.parametrize(
    ("type_name", "meant"),
    [
        ("a100_80gb", "A100-80"),
        ("a100-80gb", "A100-80"),
        ("nvidia_a100-sxm4-80gb", "A100-80"),
        ("nvidia_a100-sxm4-40gb", "A100-40"),
        ("nvidia_a100_80gb_pcie", "A100-80-PCIe"),
        ("nvidia_a100-pcie-40gb", "A100-40-PCIe"),
        ("nvidia_h100_80gb_hbm3", "H100"),
        ("nvidia_h100_pcie", "H100-PCIe"),
        ("h100", "H100"),
        ("nvidia_h200", "H200"),
        ("nvidia_gh200_480gb", "GH200-96"),
        ("nvidia_b200", "B200"),
        ("tesla_v100-sxm2-32gb", "V100-32"),
        ("tesla_v100-pcie-16gb", "V100-16-PCIe"),
        ("tesla_t4", "T4"),
        ("rtx_a6000", "RTX-A6000"),
        ("nvidia_rtx_a5000", "RTX-A5000"),
        ("rtx_2080_ti", "RTX-2080-Ti"),
        ("nvidia_geforce_rtx_2080_ti", "RTX-2080-Ti"),
        ("nvidia_rtx_6000_ada_generation", "RTX-6000-Ada"),
        ("quadro_rtx_8000", "Quadro-RTX-8000"),
        ("gpu:l40s", "L40S"),
        ("gres/gpu:l40s", "L40S"),
        ("gpu:l40s:4", "L40S"),
        ("p100", "P100"),
        ("mi250x", "MI250X"),
    ],
)
def test_a_slurm_type_names_its_gpu(type_name: str, meant: str) -> None:
    found = gpu_of_site(type_name)
    assert found is not None
    assert found.name == meant


@pytest.mark.parametrize(
    ("name", "memory_mib", "meant"),
    [
        ("NVIDIA A100-SXM4-80GB", 81920, "A100-80"),
        ("NVIDIA A100-SXM4-40GB", 40960, "A100-40"),
        ("NVIDIA A100-SXM-64GB", 65536, "A100-64"),
        ("NVIDIA A100 80GB PCIe", 81920, "A100-80-PCIe"),
        ("Tesla V100-SXM2-32GB", 32768, "V100-32"),
        ("Tesla V100-PCIE-16GB", 16384, "V100-16-PCIe"),
        ("Tesla T4", 15360, "T4"),
        ("NVIDIA H100 PCIe", 81559, "H100-PCIe"),
        ("NVIDIA H100 80GB HBM3", 81559, "H100"),
        ("NVIDIA H100 NVL", 95830, "H100-NVL"),
        ("NVIDIA H200", 143771, "H200"),
        ("NVIDIA GH200 480GB", 97871, "GH200-96"),
        ("NVIDIA GH200 144G HBM3e", 147000, "GH200-144"),
        ("NVIDIA B200", 183359, "B200"),
        ("NVIDIA A40", 46068, "A40"),
        ("NVIDIA L40S", 46068, "L40S"),
        ("NVIDIA L4", 23034, "L4"),
        ("NVIDIA A10G", 23028, "A10G"),
        ("NVIDIA RTX A6000", 49140, "RTX-A6000"),
        ("NVIDIA RTX A6000", 46068, "RTX-A6000"),  # with ECC
        ("NVIDIA RTX 6000 Ada Generation", 49140, "RTX-6000-Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, "RTX-PRO-6000"),
        ("NVIDIA GeForce RTX 3090", 24576, "RTX-3090"),
        ("NVIDIA GeForce RTX 4090", 24564, "RTX-4090"),
        ("NVIDIA GeForce RTX 5090", 32607, "RTX-5090"),
        ("Quadro RTX 6000", 24220, "Quadro-RTX-6000"),
        ("a100", 40960, "A100-40"),
        ("a100", 81920, "A100-80"),
        ("v100", 32768, "V100-32"),
        ("h100", 95830, "H100-NVL"),
    ],
)
def test_a_driver_s_name_and_memory_name_the_gpu(name: str, memory_mib: int, meant: str) -> None:
    found = gpu_of_site(name, memory_mib)
    assert found is not None
    assert found.name == meant
    assert abs(usable_gib(memory_mib) / found.memory_gib - 1) < 0.08


@pytest.mark.parametrize(
    "name", ["1g.10gb", "a100_1g.10gb", "nvidia_a100_3g.20gb", "NVIDIA H100 80GB HBM3 MIG 2g.20gb"]
)
def test_a_slice_is_no_gpu(name: str) -> None:
    assert is_slice(name)
    assert gpu_of_site(name) is None
    with pytest.raises(ConfigError, match="slice"):
        gpu_named(name)


@pytest.mark.parametrize(("name", "memory_mib"), [("GRID A100-10C", 10240), ("a100", 20480)])
def test_a_virtual_gpu_is_not_taken_for_the_whole(name: str, memory_mib: int) -> None:
    assert gpu_of_site(name, memory_mib) is None


def test_an_ambiguous_name_is_refused_with_its_choices() -> None:
    with pytest.raises(ConfigError, match="`A100` may be one of several") as caught:
        gpu_named("A100")
    assert "A100-40 (39.4 GiB)" in caught.value.hint
    assert "A100-80 (79.2 GiB)" in caught.value.hint


@pytest.mark.parametrize("name", ["A100", "v100", "GH200", "RTX 6000", "A100-PCIe"])
def test_a_site_s_ambiguous_type_means_the_smallest(name: str) -> None:
    several = ambiguous(name)
    assert len(several) > 1
    assert gpu_of_site(name) == several[0]
    assert several[0].memory_gib == min(gpu.memory_gib for gpu in several)


def test_h100_alone_is_the_usual_one() -> None:
    assert ambiguous("H100") == ()


def test_an_unknown_name_gets_the_three_nearest() -> None:
    with pytest.raises(ConfigError, match="no GPU `H1000` is known") as caught:
        gpu_named("H1000")
    assert "`H100`" in caught.value.hint
    assert sum(f"`{gpu.name}`" in caught.value.hint for gpu in known_gpus()) == 3
    assert gpu_of_site("abacus") is None


def test_every_name_and_alias_leads_to_its_own_gpu() -> None:
    for gpu in known_gpus():
        for name in (gpu.name, *gpu.aliases, gpu.name.upper(), gpu.name.replace("-", " ")):
            assert gpu_named(name) == gpu, name


def test_every_gpu_has_a_source_and_possible_figures() -> None:
    for gpu in known_gpus():
        assert gpu.source
        assert 8 < gpu.memory_gib < 300
        assert (gpu.compute_capability is None) == (gpu.vendor == "amd") == (gpu.gfx is not None)
        assert gpu.tflops <= (gpu.fp8_tflops or gpu.tflops) <= (gpu.fp4_tflops or float("inf"))
        if gpu.fp8_tflops is not None and gpu.compute_capability is not None:
            assert gpu.compute_capability >= 8.9
        if gpu.fp4_tflops is not None and gpu.compute_capability is not None:
            assert gpu.compute_capability >= 10.0


def test_memory_is_what_the_deployments_that_we_know_of_say() -> None:
    found = rows("planner_truth.csv")
    assert found
    for row in found:
        stated = float(row["gpu_mem_gib"])
        assert gpu_named(row["gpu_type"]).memory_gib == pytest.approx(stated, abs=0.11), row


def test_every_gpu_that_was_measured_is_known() -> None:
    found = rows("bench_facts.csv")
    assert found
    for name in {row["gpu"] for row in found}:
        assert gpu_named(name)
