"""What we read of a server's Prometheus text; the lines are vLLM 0.32's."""

from vendomini.chat import Load
from vendomini.engines.metrics import Counters, attention_in, parse_metrics

PAGE = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 50.0
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 200.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.7952429018097708e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 1.5e+02
vllm:external_prefix_cache_hits_total{engine="0",model_name="m"} 9.0
vllm:num_preemptions_total{engine="0",model_name="m"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1000.0
vllm:generation_tokens_total{engine="0",model_name="m"} 70.0
vllm:cache_config_info{block_size="32",engine="0",kv_cache_memory_bytes="67108864",\
kv_cache_size_tokens="65536",num_gpu_blocks="2048"} 1.0
process_cpu_seconds_total 12.5
"""


def test_every_counter_is_found_and_no_other_line_is_taken_for_it() -> None:
    counters = parse_metrics(PAGE)
    assert counters == Counters(
        running=3,
        waiting=2,
        preemptions=1,
        prompt_tokens=1000,
        generation_tokens=70,
        prefix_queries=200,
        prefix_hits=150,
        kv_cache_tokens=65536,
    )
    assert counters.load == Load(running=3, waiting=2, preemptions=1)


def test_our_own_server_is_read_by_the_same_names() -> None:
    assert parse_metrics(PAGE.replace(b"vllm:", b"vendomini:")) == parse_metrics(PAGE)


def test_several_engines_of_a_server_are_summed() -> None:
    both = PAGE + PAGE.replace(b'engine="0"', b'engine="1"')
    assert parse_metrics(both).running == 6
    assert parse_metrics(both).kv_cache_tokens == 2 * 65536


def test_an_older_vllm_tells_its_cache_by_blocks() -> None:
    older = PAGE.replace(b'kv_cache_size_tokens="65536",', b"")
    assert parse_metrics(older).kv_cache_tokens == 32 * 2048


def test_what_is_not_told_is_none() -> None:
    assert parse_metrics(b"") == Counters()
    assert parse_metrics(b"").load is None
    unknown = b'vllm:cache_config_info{block_size="32",kv_cache_size_tokens="None"} 1.0\n'
    assert parse_metrics(unknown).kv_cache_tokens is None
    assert parse_metrics(b"vllm:num_requests_running NaN\n").running is None


def test_our_own_server_tells_by_which_attention_it_computes() -> None:
    line = b'vendomini:cache_config_info{attention="sdpa",block_size="1",dtype="float32"} 1'
    assert attention_in(b"# HELP x\n" + line + b"\n") == "sdpa"
    assert attention_in(line.replace(b'attention="sdpa",', b"")) is None
    assert attention_in(line.replace(b"vendomini:", b"vllm:")) is None
