"""HyperPyYAML is read as data: references are followed, tags never act, bad input is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import DATA

from cosyvoice_cpu.checkpoint.yaml_reader import read_hyperpyyaml
from cosyvoice_cpu.checkpoint.yaml_references import Tagged
from cosyvoice_cpu.errors import CheckpointError

OFFICIAL = DATA / "golden/cosyvoice3-tiny/checkpoint/cosyvoice3.yaml"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("yaml") / "model.yaml"


def read(file, text):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_hyperpyyaml(file)


def refusal(file, text):
    with pytest.raises(CheckpointError) as caught:
        read(file, text)
    assert str(file) in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what
    return caught.value.what.removeprefix(str(file))


def test_the_original_recipe_is_read_with_its_training_sections():
    tree = read_hyperpyyaml(OFFICIAL)
    llm = tree["llm"]
    assert llm.target == "cosyvoice.llm.llm.CosyVoice3LM"
    assert llm.value["llm_input_size"] == 64
    estimator = tree["flow"].value["decoder"].value["estimator"]
    assert estimator.value["static_chunk_size"] == 50
    assert estimator.value["num_decoding_left_chunks"] == -1
    assert tree["feat_extractor"].value["fmax"] is None
    assert tree["train_conf"]["optim_conf"]["lr"] == 1e-5
    assert tree["hifigan"].value["generator"] == tree["hift"]
    assert [step.target.rpartition(".")[2] for step in tree["data_pipeline"]][:2] == [
        "parquet_opener",
        "tokenize",
    ]


def test_no_tag_ever_runs_what_it_names(file, tmp_path):
    marker = tmp_path / "was-run"
    tree = read(
        file,
        f"""
a: !apply:os.system ["touch {marker}"]
b: !name:os.system
c: !new:subprocess.Popen [["touch", "{marker}"]]
d: !module:antigravity
""",
    )
    assert not marker.exists()
    assert all(isinstance(value, Tagged) for value in tree.values())
    assert tree["a"] == Tagged("!apply:os.system", [f"touch {marker}"], 2)
    assert tree["b"].target == "os.system"


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!python/object/apply:os.system ['touch was-run']", "python/object/apply:os.system"),
        ("!!python/name:os.system", "python/name:os.system"),
        ("!!binary aGk=", "binary"),
        ("!!timestamp 2001-01-01", "timestamp"),
        ("!!set {a, b}", "set"),
        ("!!map [1]", "map"),
        ("!include:other.yaml", "!include:other.yaml"),
        ("!anything-else {x: 1}", "!anything-else"),
    ],
)
def test_an_unknown_tag_is_refused(file, value, tag):
    found = refusal(file, f"a: 1\nb: {value}\n")
    assert found in (f":2: unknown tag {tag}", f":2: unknown tag tag:yaml.org,2002:{tag}")


def test_a_core_tag_chooses_the_type_and_must_fit(file):
    assert read(file, "a: !!str 3\nb: !!int '3'\nc: !!float 3\n") == {"a": "3", "b": 3, "c": 3.0}
    assert refusal(file, "a: !!int 0x1F\n") == ":1: '0x1F' is no int"


@given(a=st.integers(-1000, 1000), b=st.integers(-1000, 1000), c=st.integers(1, 1000))
def test_a_reference_computes_what_python_computes(file, a, b, c):
    text = f"a: {a}\nb: {b}\nc: {c}\n"
    text += "x: !ref (<a> + <b>) * <c>\ny: !ref <a> - 2 * <b> / <c>\nz: !ref -<a>\nw: [!ref <a>]\n"
    tree = read(file, text)
    assert tree["x"] == (a + b) * c
    assert tree["y"] == a - 2 * b / c
    assert tree["z"] == -a
    assert tree["w"] == [a]


def test_whole_numbers_stay_whole_and_a_lone_reference_keeps_its_type(file):
    tree = read(file, "a: 25\nb: null\nc: !ref <a> * 2\nd: !ref <b>\ne: {f: [!ref <c>]}\n")
    assert type(tree["c"]) is int
    assert tree["d"] is None
    assert tree["e"] == {"f": [50]}


def test_a_reference_within_text_is_put_in(file):
    assert read(file, "root: data\npath: !ref <root>/train-<n>\nn: 3\n")["path"] == "data/train-3"


def test_scalars_follow_yaml_1_2_as_in_the_original_reader(file):
    tree = read(
        file, "a: 1e-5\nb: yes\nc: '3'\nd: 010\ne: True\nf:\ng: .inf\nh: 1_000\ni: 2001-01-01\n"
    )
    assert tree == {
        "a": 1e-5,
        "b": "yes",
        "c": "3",
        "d": 10,
        "e": True,
        "f": None,
        "g": float("inf"),
        "h": "1_000",
        "i": "2001-01-01",
    }


def test_an_unknown_reference_is_named_with_its_line(file):
    assert refusal(file, "a: 1\nb: !ref <missing> * 2\n") == (
        ":2: !ref <missing> * 2: no top-level key 'missing'"
    )


def test_a_circle_of_references_is_named(file):
    assert "refers to itself: a -> b -> a" in refusal(file, "a: !ref <b>\nb: [!ref <a>]\n")


def test_an_alias_inside_its_own_anchor_is_refused(file):
    assert refusal(file, "a: &x [*x]\n") == ":1: an alias inside its own anchor"


def test_an_alias_is_the_value_again(file):
    assert read(file, "a: &x {b: 1}\nc: [*x, *x]\n")["c"] == [{"b": 1}, {"b": 1}]
    assert refusal(file, "a: *x\n") == ":1: found undefined alias 'x'"


def test_aliases_that_multiply_are_refused_quickly(file):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "aliases are expanded" in refusal(file, "\n".join(lines))


def test_references_that_multiply_text_or_numbers_are_refused_quickly(file):
    text = "t0: xx\n" + "".join(f"t{n}: !ref <t{n - 1}><t{n - 1}>\n" for n in range(1, 40))
    assert "more than 1000 characters" in refusal(file, text)
    text = "n0: 9\n" + "".join(f"n{n}: !ref <n{n - 1}> * <n{n - 1}>\n" for n in range(1, 40))
    assert "too large" in refusal(file, text)


def test_a_power_is_no_arithmetic_here(file):
    assert read(file, "a: 9\nb: !ref <a> ** 9999999\n")["b"] == "9 ** 9999999"


def test_duplicate_keys_are_refused_with_the_line(file):
    assert refusal(file, "a: 1\nb:\n  c: 2\n  c: 3\n") == ":4: duplicate key 'c'"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: \xff\xfe", "is not UTF-8 text (byte 3)"),
        ("", "is not a YAML mapping"),
        ("- a\n- b\n", "is not a YAML mapping"),
        ("a: 1\n---\nb: 2\n", ":2: but found another document"),
        ("a: [1, 2\nb: 3\n", ":2: "),
        ("a: \x00", "special characters are not allowed"),
        ("[a]: 1\n", "a key must be a plain word"),
        ("a: !ref b\n", "a reference is written <name>"),
        ("a: 1\nb: !ref <a> / 0\n", "division by zero"),
        ("a: x\nb: !ref <a> * 2\n", "'x' is not a number"),
        ("a: [1]\nb: !ref <a> * 2\n", "[1] is not a number"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: " + "x" * (1 << 18), "larger than"),
    ],
)
def test_bad_files_are_refused_in_one_line(file, text, problem):
    assert problem in refusal(file, text)


@given(st.text(alphabet="ab<>!&*:-?[]{}|#%@`'\" \n\t0.1+/()re f", max_size=60))
def test_any_text_is_read_or_refused_and_never_breaks(file, text):
    try:
        assert isinstance(read(file, text), dict)
    except CheckpointError as error:
        assert str(file) in error.what
