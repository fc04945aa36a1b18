"""What `inherit` may name: of a file that is no phase file an error shows no content."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from vendomini.config import load_phase
from vendomini.errors import ConfigError
from vendomini.workloads.registry import workload_named
from vendomini.yamlfile import MOST_BYTES, load_yaml

SECRET = "hunter2"
EXPECTED = "name a YAML file with sections such as `experiment:`"

Refuse = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path) -> Refuse:
    """Writes a phase file that inherits from the file of a name, and what is said against it."""

    def refused(name: str, content: str | bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        phase = tmp_path / "phase.yaml"
        phase.write_text(f"experiment: {{name: mine}}\ninherit: {name}\n")
        with pytest.raises(ConfigError) as caught:
            load_phase(phase, workload_named=workload_named)
        assert caught.value.exit_code == 2
        said = f"{caught.value} | {caught.value.hint}"
        assert said.startswith(f"{phase}, line 2: `inherit: {name}`: ")
        return said

    return refused


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"root:${SECRET}:1:2:3:::\ndaemon:*:1:2:3:::\n", 1),  # one text over two lines
        (f"root:x:0:0:{SECRET}: /bin/sh\n", 1),  # a key, and a value
        (f"# of the site\nroot:x:0: {SECRET}\n", 2),
        (f"a: 1\n{SECRET}: 2\n{SECRET}: 3\n", 3),  # a key twice
        (f"- {SECRET}\n", 1),
        (f"{SECRET}\n", 1),
        (f"a: *{SECRET}\n", 1),  # an alias that nothing defines
        (f"a: &{SECRET}\n", 1),
        (f"a: !{SECRET} b\n", 1),
        (f"a: !!{SECRET} b\n", 1),
        (f"a: [{SECRET}\n", 2),
        (f"a: {SECRET}: b\n", 1),
        (f"a: {{{SECRET}}}\n", 1),
        (f"a: b\n %{SECRET}\n", 1),
        (f"%{SECRET}\n", 2),
        (f"? [{SECRET}]\n: b\n", 1),
        ("a: 1\nb: 0x1F\n", 2),  # what YAML versions disagree about
        ("3.5: a\n", 1),
        (f"a: {{<<: {SECRET}}}\n", 1),
        (f"{{{SECRET}: experiment}}\n", 1),
        (f"not_experiment: {SECRET}\n experiment: {SECRET}\n", 2),
        (f"experimental: {SECRET}\n", 1),
        (f"experiment:{SECRET}\nx: y\n", 2),
        (f"a: {SECRET}\x07", 1),
    ],
)
def test_of_a_file_that_is_no_phase_file_only_path_and_line_are_said(
    content: str, line: int, refusal: Refuse, tmp_path: Path
) -> None:
    said = refusal("./found", content)
    # A bracket that nobody closes is noticed at the end of the file.
    assert f"{tmp_path / 'found'}, line {line}: no phase file" in said
    assert EXPECTED in said
    for word in (SECRET, "daemon", "0x1F", "3.5", "U+0007"):
        assert word not in said


@pytest.mark.parametrize("name", ["/etc/passwd", "/etc/shadow", "/etc/hosts", "/proc/self/environ"])
def test_no_line_of_a_file_of_the_system_is_shown(name: str, refusal: Refuse) -> None:
    if not os.access(name, os.R_OK):
        pytest.skip(f"{name} is not to be read here")
    said = refusal(name)
    words = Path(name).read_text("utf-8", errors="replace").replace("\0", "\n").splitlines()
    shown = [line for line in words if len(line) > 8 and line in said]
    assert not shown
    assert "no phase file" in said


def test_an_empty_file_and_one_nested_too_deeply_have_no_line(refusal: Refuse) -> None:
    for content in ("", "# a comment\n", "a: " + "[" * 5000):
        said = refusal("./found", content)
        assert "found: no phase file: it cannot be read as one" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("experiment:\n  nmae: x\n", "found, line 2: there is no setting `experiment.nmae`"),
        ("experiment:\n  name: x\n  name: y\n", "line 3: `experiment.name` is written twice"),
        ("'engine':\n  policy: *x\n", "line 2, column 11: not YAML: found undefined alias 'x'"),
        ("grid:\n  a: [1\n", "line 3, column 1: not YAML"),
        ("fixed.simulation.max_steps: 0x1F\n", "`0x1F`"),
        ("simulation:\n  max_step: 5\n", "there is no setting `simulation.max_step`"),
        ("simulation: {max_steps: 0}\ntypo: 1\n", "line 2: there is no setting `typo`"),
        ("environment: {a: 1}\n", "write `environment` as `simulation`"),
    ],
)
def test_a_file_with_a_section_of_a_phase_keeps_the_errors_that_show_it(
    content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "found").write_text(content)
    phase = tmp_path / "phase.yaml"
    phase.write_text("inherit: ./found\n")
    with pytest.raises(ConfigError) as caught:
        load_phase(phase, workload_named=workload_named)
    assert said in f"{caught.value} | {caught.value.hint}"


@pytest.mark.parametrize(
    "content", ["max_steps: 7\n", "env: {max_steps: 7}\n", "{simulation: {max_steps: 7}}\n"]
)
def test_a_file_with_nothing_but_one_section_is_inherited_in_older_words_too(
    content: str, tmp_path: Path
) -> None:
    (tmp_path / "found.yaml").write_text(content)
    phase = tmp_path / "phase.yaml"
    phase.write_text("experiment: {name: mine}\ninherit: found.yaml\n")
    loaded = load_phase(phase, ["agent.kind=heuristic"], workload_named=workload_named)
    assert loaded.base["simulation"]["max_steps"] == 7


def test_a_file_without_a_key_is_inherited_and_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "found.yaml").write_text("{}\n")
    phase = tmp_path / "phase.yaml"
    phase.write_text("experiment: {name: mine}\ninherit: found.yaml\n")
    assert load_phase(phase, workload_named=workload_named).experiment.name == "mine"


def test_a_wrong_file_far_up_the_chain_is_as_silent(tmp_path: Path) -> None:
    (tmp_path / "far").write_text(f"root:x:0: {SECRET}\n")
    (tmp_path / "near.yaml").write_text("inherit: ./far\n")
    phase = tmp_path / "phase.yaml"
    phase.write_text("inherit: near.yaml\n")
    with pytest.raises(ConfigError, match=r"near\.yaml, line 1: .*far, line 1: no phase") as caught:
        load_phase(phase, workload_named=workload_named)
    assert SECRET not in f"{caught.value}{caught.value.hint}"


# -- what is no text ---------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\x7fELF\x02\x01\n\xff\xfe", b"a\nb: caf\xe9\n"])
def test_a_binary_file_is_refused_by_its_line(content: bytes, refusal: Refuse) -> None:
    assert "line 2: the file is not UTF-8 text" in refusal("./found", content)


def test_a_folder_is_refused(refusal: Refuse, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refusal("./folder")


def test_a_name_with_a_nul_is_no_path(tmp_path: Path) -> None:
    phase = tmp_path / "phase.yaml"
    phase.write_text('inherit: "a\\0b"\n')
    with pytest.raises(ConfigError, match="line 1: `inherit` is"):
        load_phase(phase, workload_named=workload_named)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(
    refusal: Refuse, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        # By its relative name: the path of a socket has at most 107 bytes.
        before = Path.cwd()
        os.chdir(tmp_path)
        try:
            listening.bind("socket")
        finally:
            os.chdir(before)
        waits = threading.Timer(10, lambda: os.open(tmp_path / "pipe", os.O_WRONLY))
        waits.daemon = True
        waits.start()
        for name in ("./pipe", "./socket", "/dev/zero", "/dev/null"):
            assert "is no regular file" in refusal(name)
        assert waits.is_alive()  # nobody had to write for the pipe to be refused
        waits.cancel()
    # As the file that is named first, too.
    with pytest.raises(ConfigError, match="is no regular file"):
        load_yaml(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(
    refusal: Refuse, tmp_path: Path
) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)  # it has holes, and takes no space
    assert f"is larger than {MOST_BYTES:,} bytes" in refusal("./huge")
    with pytest.raises(ConfigError, match="is larger than"):
        load_yaml(tmp_path / "huge")
