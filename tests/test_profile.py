"""Profiles: what they say, and one error for each mistake in one."""

from dataclasses import replace
from pathlib import Path

import pytest

from vendomini.cluster import ClusterFacts, Gpus, Node, Partition, Resources, rule_for
from vendomini.errors import ConfigError
from vendomini.partitions import check_against, partition_of
from vendomini.profile import default_profile, load_profile

ROOT = Path(__file__).resolve().parent.parent

RULE = """\
partition: gpu
resources:
  - model: "*8B*"
    gpus: 1
    cpus: 8
    memory: 48G
    minutes: 120
"""

NODES = """\
nodes:
  - {count: 1, gpu: A100-40, gpu_type: a100, gpus: 4, cpus: 32, memory: 250G, partition: gpu}
"""
PLANNED = Resources(
    gpus=1, gpu_type="a100", cpus=8, memory_gb=40.0, minutes=60, workers=2, partition="gpu"
)

A100 = Node(name="a1", cpus=32, memory_mb=256_000, gpus=(Gpus(type="a100", count=4),))
H100 = Node(name="h1", cpus=16, memory_mb=64_000, gpus=(Gpus(type="h100", count=8),))
CPU = Node(name="c1", cpus=128, memory_mb=1_000_000)


def partition(name: str, *nodes: Node, up: bool = True, limit: int | None = 2880) -> Partition:
    return Partition(
        name=name,
        is_default=name == "cpu",
        is_up=up,
        max_minutes=limit,
        default_minutes=None,
        nodes=nodes,
    )


FACTS = ClusterFacts(
    partitions=(
        partition("cpu", CPU, limit=None),
        partition("gpu", A100, H100, CPU),
        partition("old", A100, up=False),
    ),
    max_array_size=1001,
)


def write(folder: Path, text: str) -> Path:
    path = folder / "lab.yaml"
    path.write_text(text)
    return path


def mistake(folder: Path, text: str) -> str:
    """Message and hint of the error that a profile raises."""
    with pytest.raises(ConfigError) as caught:
        load_profile(write(folder, text))
    return f"{caught.value} | {caught.value.hint}"


def misfit(folder: Path, text: str) -> str:
    """Message and hint of the error that a profile raises on the cluster of `FACTS`."""
    with pytest.raises(ConfigError) as caught:
        check_against(load_profile(write(folder, text)), FACTS)
    return f"{caught.value} | {caught.value.hint}"


def test_a_profile_says_what_its_file_says(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, RULE))
    assert profile.name == "lab"
    assert profile.partition == "gpu"
    rule = rule_for(profile, "meta-llama/Llama-3.1-8B-Instruct")
    assert rule is not None
    found = rule.resources
    assert (found.gpus, found.cpus, found.memory_gb, found.minutes) == (1, 8, 48.0, 120)
    assert found.workers == 1


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, "partition: cpu\n"))
    assert (profile.heartbeat_s, profile.dead_after_s) == (30, 180)
    engineless = profile.engineless
    assert (engineless.gpus, engineless.cpus, engineless.memory_gb) == (0, 1, 4.0)
    assert engineless.minutes == 60


def test_a_site_names_the_environments_of_its_engines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "engines:\n  vllm: {container: docker://vllm}\n  hf: {python: env/bin/python}\n"
    engines = load_profile(write(tmp_path, text)).engines
    assert (engines["vllm"].container, engines["vllm"].python) == ("docker://vllm", None)
    assert engines["hf"].python == str(tmp_path / "env" / "bin" / "python")
    assert load_profile(write(tmp_path, RULE)).engines == {}
    assert "there is no engine `vlm`" in mistake(tmp_path, "engines:\n  vlm: {}\n")


def test_without_a_file_the_profile_names_nothing() -> None:
    profile = default_profile()
    assert profile.partition is None
    assert profile.resources == ()


@pytest.mark.parametrize(("text", "memory_gb"), [("512M", 0.5), ("48G", 48), ("1.5T", 1536)])
def test_memory_is_a_number_with_a_unit(tmp_path: Path, text: str, memory_gb: float) -> None:
    profile = load_profile(write(tmp_path, RULE.replace("48G", text)))
    assert profile.resources[0].resources.memory_gb == memory_gb


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    cpus:", "    cpu:", "line 5: there is no setting `resources[0].cpu` | did you mean"),
        ("partition:", "partitoin:", "there is no setting `partitoin` | did you mean `partition`?"),
        ("minutes: 120", "minutes: 0", "line 7: `resources[0].minutes` is `0`"),
        ("minutes: 120", "minutes: -5", "`resources[0].minutes` is `-5`"),
        ("minutes: 120", "minutes: 2:00:00", "line 7: `resources[0].minutes` is `2:00:00`"),
        ("minutes: 120", "minutes: 2", "no longer than `signal_delay_s`, `120` seconds"),
        ("gpus: 1", "gpus: one", "`resources[0].gpus` is `one`"),
        ("memory: 48G", "memory: 48", "`resources[0].memory` is `48`"),
        ("memory: 48G", "memory: 48GiB", "line 6: `resources[0].memory` is `48GiB`"),
        ("memory: 48G", "memory: 0G", "`resources[0].memory` is `0G`, which is no amount"),
        ("    memory: 48G\n", "", "`resources[0].memory` is missing"),
        ("gpus: 1", "gpus: 0\n    gpu_type: a100", "`resources[0].gpu_type` is `a100`, but"),
        ("partition: gpu", "gpu_request: gpu", "`gpu_request` is `gpu`, which is not among"),
        ("partition: gpu", "dead_after_s: 40", "`dead_after_s` is `40`, less than two beats"),
        ("partition: gpu", "heartbeat_s: 0", "`heartbeat_s` is `0`, which is outside"),
        ("partition: gpu", "engineless: {memory: lots}", "`engineless.memory` is `lots`"),
    ],
)
def test_a_mistake_is_named_with_its_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RULE
    assert said in mistake(tmp_path, RULE.replace(old, new, 1))


def test_a_missing_profile_names_the_nearest_file(tmp_path: Path) -> None:
    near = write(tmp_path, RULE)
    with pytest.raises(ConfigError) as caught:
        load_profile(tmp_path / "lap.yaml")
    assert str(near) in caught.value.hint


def test_a_profile_that_the_cluster_can_serve_passes(tmp_path: Path) -> None:
    check_against(load_profile(write(tmp_path, RULE)), FACTS)
    check_against(default_profile(), FACTS)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("partition: gpu", "partition: gpus", "no partition `gpus` | did you mean `gpu`?"),
        (
            "partition: gpu",
            "partition: old",
            "`old` takes no jobs now | partitions that take jobs: cpu",
        ),
        ("minutes: 120", "minutes: 2881", "`minutes` is `2881`, but partition `gpu` allows at"),
        ("gpus: 1", "gpus: 9", "`gpus` is `9`, but no node of partition `gpu` has more than 8"),
        (
            "gpus: 1",
            "gpus: 5\n    gpu_type: a100",
            "no node of partition `gpu` has more than 4 `a100` GPUs | types of GPU there: a100, h",
        ),
        ("gpus: 1", "gpus: 1\n    gpu_type: v100", "has more than 0 `v100` GPUs"),
        ("gpus: 1", "gpus: 1\n    partition: cpu", "no node of partition `cpu` has more than 0"),
        ("cpus: 8", "cpus: 64", "`cpus` is `64`, but no node of partition `gpu` with 1 GPUs has"),
        ("memory: 48G", "memory: 500G", "`memory` is `500G`, but no node of partition `gpu`"),
        ("partition: gpu", "partition: gpu\nengineless: {cpus: 500}", "`engineless`: `cpus` is"),
    ],
)
def test_what_no_node_can_serve_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in RULE
    assert said in misfit(tmp_path, RULE.replace(old, new, 1))


def test_a_rule_that_nobody_wants_now_may_ask_for_too_much(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path, RULE.replace("gpus: 1", "gpus: 64")))
    check_against(profile, FACTS, wanted={"no engine": profile.engineless})
    with pytest.raises(ConfigError, match="`gpus` is `64`"):
        check_against(profile, FACTS, wanted={"8B": profile.resources[0].resources})


def unserved(folder: Path, **changed: object) -> str:
    """Message and hint of the error that a job planned for `nodes` raises on that cluster."""
    profile = load_profile(write(folder, NODES))
    planned = replace(PLANNED, **changed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as caught:
        check_against(profile, FACTS, wanted={"8B": planned})
    return f"{caught.value} | {caught.value.hint}"


def test_what_was_planned_for_nodes_that_are_there_passes(tmp_path: Path) -> None:
    check_against(load_profile(write(tmp_path, NODES)), FACTS, wanted={"8B": PLANNED})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"partition": "gpus"}, "no partition `gpus` | did you mean `gpu`? There are: cpu, gpu"),
        ({"partition": "old"}, "`old` takes no jobs now"),
        ({"minutes": 4000}, "`minutes` is `4000`, but partition `gpu` allows at most 2880 | corr"),
        ({"gpus": 5}, "`gpus` is `5`, but no node of partition `gpu` has more than 4 `a100` GPUs"),
        ({"gpu_type": "v100"}, "no node of partition `gpu` has more than 0 `v100` GPUs | types of"),
        ({"cpus": 33}, "`cpus` is `33`, but no node of partition `gpu` with 1 `a100` GPUs has mor"),
        ({"memory_gb": 300.0}, "`memory` is `300G`, but no node of partition `gpu` with 1 `a100`"),
    ],
)
def test_nodes_that_the_cluster_does_not_have_are_named(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    told = unserved(tmp_path, **changed)
    assert said in told
    assert "correct the profile's `nodes`, or remove them" in told


def test_a_job_that_could_get_any_type_of_gpu_is_refused(tmp_path: Path) -> None:
    said = unserved(tmp_path, gpu_type=None)
    assert "name no type of GPU, but partition `gpu` has `a100` and `h100`" in said
    assert "`gpu_type`" in said
    profile = load_profile(write(tmp_path, NODES))
    by_feature = replace(PLANNED, gpu_type=None, constraint="gpu80")
    check_against(profile, FACTS, wanted={"8B": by_feature})


def test_cpus_and_memory_must_be_on_one_node(tmp_path: Path) -> None:
    memory_node = Node(name="m1", cpus=8, memory_mb=2_000_000)
    cpu_node = Node(name="c2", cpus=64, memory_mb=64_000)
    facts = ClusterFacts(
        partitions=(partition("cpu", memory_node, cpu_node),),
        max_array_size=1001,
    )
    text = "engineless: {cpus: 64, memory: 1T}\n"
    with pytest.raises(ConfigError, match="has both `64` CPUs and `1024G`"):
        check_against(load_profile(write(tmp_path, text)), facts)


def test_without_a_partition_jobs_go_to_the_default_one() -> None:
    profile = default_profile()
    assert partition_of(profile.engineless, profile, FACTS).name == "cpu"


def test_a_cluster_without_a_default_partition_needs_one_named() -> None:
    facts = ClusterFacts(
        partitions=(partition("gpu", A100),),
        max_array_size=1001,
    )
    with pytest.raises(ConfigError, match="no default one") as caught:
        check_against(default_profile(), facts)
    assert "gpu" in caught.value.hint


MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "allenai/OLMo-2-1124-13B-Instruct",
    "deepseek-ai/deepseek-llm-7b-chat",
    "Qwen/Qwen3-32B",
    "openai/gpt-oss-20b",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen2.5-72B-Instruct",
    "deepseek-ai/DeepSeek-V2.5",
)


@pytest.mark.parametrize("model", MODELS)
def test_the_example_profile_has_a_rule_for_every_model_of_the_study(model: str) -> None:
    profile = load_profile(ROOT / "slurm" / "example.yaml")
    rule = rule_for(profile, model)
    assert rule is not None
    assert rule.resources.gpus >= 1
