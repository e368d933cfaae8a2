"""What `models.py` and `realtime.py` share: the filling rule, files, and their comparison."""

import filecmp
import json
import math
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

TOLERANCE = 1e-4  # of the largest absolute value, for --check on another machine

Tensors = dict[str, torch.Tensor]


def is_norm_gain(name: str) -> bool:
    """`ada_rms_norm` holds no gain but the two matrices of the delay conditioning."""
    return name.endswith(".weight") and "norm" in name and "ada" not in name


def formula_fill(index: int, name: str, shape: torch.Size) -> np.ndarray:
    """`0.1 sin(0.7 i + 1.3 k)` for element i of the k-th name, plus 1 in the gain of a norm."""
    values = 0.1 * np.sin(0.7 * np.arange(math.prod(shape)) + 1.3 * index)
    return values.reshape(shape) + (1.0 if is_norm_gain(name) else 0.0)


def formula_mel(bins: int, frames: int) -> np.ndarray:
    """`0.5 sin(0.01 t (c + 1))`, `[1, bins, frames]`."""
    return 0.5 * np.sin(0.01 * np.arange(frames) * np.arange(1, bins + 1)[:, None])[None]


def interleave(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """`native[h d + 2 j + p] = hf[h d + p d/2 + j]`: from split halves to neighbouring pairs."""
    return rows.unflatten(0, (-1, 2, head_dim // 2)).transpose(1, 2).flatten(0, 2).contiguous()


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def read_tensors(folder: Path) -> Tensors:
    """All tensors of a checkpoint, one file or shards."""
    tensors: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


def check_pins(full: Tensors, pins: dict[str, list[tuple[int, list[float]]]]) -> None:
    """Requires printed values of an earlier, separate computation."""
    for name, rows in pins.items():
        for row, expected in rows:
            actual = full[name][row, : len(expected)]
            torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=2e-5)


def describe(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def described(tensors: Tensors) -> dict:
    """What every `golden.json` says."""
    return {
        "tensors": {name: describe(tensor) for name, tensor in tensors.items()},
        "versions": {name: version(name) for name in ("transformers", "torch", "safetensors", "numpy")},
    }


def compare(stored: Path, fresh: Path) -> list[str]:
    """What differs between two trees: outputs by tolerance, everything else byte by byte."""
    names = {p.relative_to(root) for root in (stored, fresh) for p in root.rglob("*") if p.is_file()}
    problems = []
    for name in sorted(names):
        a, b = stored / name, fresh / name
        if not (a.is_file() and b.is_file()):
            problems.append(f"{name}: only in {'the stored' if a.is_file() else 'the fresh'} tree")
        elif filecmp.cmp(a, b, shallow=False) or name.name == "golden.json":
            continue
        elif name.name == "golden.safetensors":
            problems += [f"{name}: {problem}" for problem in compare_tensors(load_file(a), load_file(b))]
        else:
            problems.append(f"{name}: bytes differ")
    return problems


def compare_tensors(stored: Tensors, fresh: Tensors) -> list[str]:
    if set(stored) != set(fresh):
        return [f"names differ: {sorted(set(stored) ^ set(fresh))}"]
    problems = []
    for name, a in stored.items():
        b = fresh[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            problems.append(f"`{name}` is {describe(a)}, fresh {describe(b)}")
            continue
        limit = TOLERANCE * float(a.abs().max()) if a.is_floating_point() else 0
        if float((a - b).abs().max()) > limit:
            problems.append(f"`{name}` differs by {float((a - b).abs().max()):.3g}, limit {limit:.3g}")
    return problems
