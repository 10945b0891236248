"""`.pt` files: exactly the expected tensors, or one line that says what the file is instead."""

import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from cosyvoice_cpu.checkpoint.state_dicts import load_tensors
from cosyvoice_cpu.errors import CheckpointError

EXPECTED = {"a.weight": (2, 3), "a.bias": (2,)}
STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


def save(folder, state, **options):
    torch.save(state, folder / "llm.pt", **options)
    return folder / "llm.pt"


def refusal(path, expected=EXPECTED, skipped=None):
    with pytest.raises(CheckpointError) as caught:
        load_tensors(path, expected, skipped or {})
    assert str(path) in caught.value.what
    assert caught.value.hint
    assert "\n" not in caught.value.what
    assert "weights_only" not in caught.value.what
    return caught.value.what


def test_tensors_come_back_in_the_expected_order_without_gradient(tmp_path):
    path = save(tmp_path, dict(reversed([(k, torch.nn.Parameter(v)) for k, v in STATE.items()])))
    tensors = load_tensors(path, EXPECTED, {})
    assert list(tensors) == list(EXPECTED)
    assert all(torch.equal(tensors[key], STATE[key]) for key in EXPECTED)
    assert not any(tensor.requires_grad for tensor in tensors.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    path = save(tmp_path, {key: value.to(dtype) for key, value in STATE.items()})
    tensors = load_tensors(path, EXPECTED, {})
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert torch.equal(tensors["a.weight"], STATE["a.weight"])


def test_skipped_and_prefixed_keys_are_handled(tmp_path):
    state = {f"generator.{key}": value for key, value in STATE.items()}
    path = save(tmp_path, state | {"epoch": 3, "head.weight": torch.ones(9)})
    tensors = load_tensors(path, EXPECTED, {r"epoch|step": "", r"head\..*": ""}, drop="generator.")
    assert list(tensors) == list(EXPECTED)


def test_a_key_that_is_there_with_and_without_prefix_is_refused(tmp_path):
    path = save(tmp_path, STATE | {"generator.a.bias": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"holds a\.bias twice"):
        load_tensors(path, EXPECTED, {}, drop="generator.")


def test_missing_unexpected_and_misshapen_keys_are_listed_together(tmp_path):
    state = {f"x{n}": torch.ones(1) for n in range(5)} | {"a.weight": torch.ones(3, 2)}
    what = refusal(save(tmp_path, state))
    assert "missing a.bias;" in what
    assert "unexpected x0, x1, x2 and 2 more;" in what
    assert "wrong shape: a.weight [3, 2], expected [2, 3]" in what


def test_weight_norm_of_the_old_form_is_refused(tmp_path):
    state = {
        "a.weight_g": torch.ones(2, 1),
        "a.weight_v": torch.ones(2, 3),
        "a.bias": torch.ones(2),
    }
    assert "stores weight norm the old way: a.weight_g, a.weight_v" in refusal(
        save(tmp_path, state)
    )


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (torch.ones(2, dtype=torch.int64), "a.bias is stored as int64, not as floats"),
        (torch.ones(2, dtype=torch.complex64), "a.bias is stored as complex64"),
        (torch.ones(2, dtype=torch.float8_e4m3fn), "a.bias is stored as float8_e4m3fn"),
        (torch.ones(2).to_sparse(), "a.bias is not stored as a plain dense tensor"),
        (torch.ones(2, device="meta"), "a.bias is not stored as a plain dense tensor"),
        ({"a": 1}, "no tensor under a.bias"),
    ],
)
def test_what_is_no_dense_float_tensor_is_refused(tmp_path, value, problem):
    assert problem in refusal(save(tmp_path, STATE | {"a.bias": value}))


class RunsAtUnpickling:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_pickle_that_would_run_a_program_is_refused_and_does_not_run(tmp_path):
    marker = tmp_path / "was-run"
    path = save(tmp_path, STATE | {"a.bias": RunsAtUnpickling(marker)})
    assert "holds Python objects besides tensors" in refusal(path)
    path.write_bytes(pickle.dumps(RunsAtUnpickling(marker)))
    assert "is a bare pickle" in refusal(path)
    assert not marker.exists()


def test_a_whole_module_is_refused(tmp_path):
    assert "holds Python objects" in refusal(save(tmp_path, torch.nn.Linear(3, 2)))


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), "text"])
def test_what_is_not_a_dict_is_refused(tmp_path, content):
    assert f"holds a {type(content).__name__}, not a state dict" in refusal(save(tmp_path, content))


DDP = {f"module.{key}": value for key, value in STATE.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        DDP,
        DDP | {"epoch": 3, "step": 100},
        {"module": STATE, "optimizer": {"state": {0: torch.ones(2)}}, "ds_version": "0.14"},
        {"model": STATE, "iteration": 5},
        {"state_dict": STATE},
        {"model": DDP},
    ],
)
def test_what_trainers_wrap_around_a_state_dict_is_taken_off(tmp_path, wrapped):
    tensors = load_tensors(save(tmp_path, wrapped), EXPECTED, {r"epoch|step": ""})
    assert all(torch.equal(tensors[key], STATE[key]) for key in EXPECTED)


def test_a_wrapper_without_the_tensors_is_refused(tmp_path):
    assert "missing a.weight, a.bias" in refusal(save(tmp_path, {"model": {}}))
    assert "unexpected other" in refusal(save(tmp_path, {"other": STATE}))


def test_wrappers_around_wrappers_without_end_are_taken_off(tmp_path):
    depth = 50_000
    path = tmp_path / "a.pt"
    program = b"\x80\x02" + b"}X\x05\0\0\0model" * depth + b"}" + b"s" * depth + b"."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", program)
        archive.writestr("a/version", "3")
    assert "missing a.weight, a.bias" in refusal(path)


def test_expected_tensors_that_share_their_numbers_are_refused(tmp_path):
    numbers = torch.ones(1 << 16)
    path = save(tmp_path, {name: numbers for name in "abc"})
    what = refusal(path, dict.fromkeys("abc", (1 << 16,)))
    assert "is smaller than its tensors, which share numbers" in what
    assert len(load_tensors(path, {"a": (1 << 16,)}, {"[bc]": "tied"})) == 1


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_truncated_file_is_named_in_the_error(tmp_path, kept):
    path = save(tmp_path, STATE)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert "is incomplete or damaged" in refusal(path)


def test_damage_at_any_place_is_refused_or_leaves_the_right_shapes(tmp_path):
    path = save(tmp_path, STATE)
    content = path.read_bytes()
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0x55
        path.write_bytes(damaged)
        try:
            tensors = load_tensors(path, EXPECTED, {})
        except CheckpointError as error:
            assert str(path) in error.what
        else:
            assert {key: tuple(value.shape) for key, value in tensors.items()} == EXPECTED


def test_other_files_under_the_name_are_recognized(tmp_path):
    path = tmp_path / "llm.pt"
    save_file(STATE, path)
    assert "is a safetensors file under another name" in refusal(path)
    save(tmp_path, STATE, _use_new_zipfile_serialization=False)
    assert "is a bare pickle (PyTorch before 1.6)" in refusal(path)
    path.write_bytes(b"anything")
    assert "is not a PyTorch file" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is a zip file, but none of PyTorch" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:  # the files by which TorchScript is known
        archive.writestr("model/data.pkl", b"")
        archive.writestr("model/constants.pkl", b"")
    assert "is a TorchScript program" in refusal(path)
