"""What every training pipeline shares: hashes, weights on disk, JSON, and bootstrap intervals over cases."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

RESAMPLES = 10_000


class DataError(ValueError):
    """The data folder lacks something, named in the message."""


def sha256_of(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def save_state(state: Mapping[str, Any], path: Path) -> None:
    """Write tensors and plain values, which load with `weights_only=True`; whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    torch.save(dict(state), part)
    part.replace(path)


def save_weights(network: torch.nn.Module, path: Path) -> None:
    """Write a plain state dict, which loads with `weights_only=True`."""
    save_state({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Indented JSON with a newline at its end; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def rounded(value: Any) -> Any:
    """The same structure with four decimals, and None for what is no number (JSON has no NaN)."""
    if isinstance(value, Mapping):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    return value


def mean_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Mean over cases and its 95 % percentile-bootstrap interval (cases resampled 10,000 times)."""
    return statistic_with_interval(values, lambda rows: rows.mean(axis=1), "mean", seed)


def median_with_interval(values: Sequence[float], seed: int = 0) -> dict[str, float]:
    """Median over cases and its 95 % percentile-bootstrap interval (cases resampled 10,000 times)."""
    return statistic_with_interval(values, lambda rows: np.median(rows, axis=1), "median", seed)


def statistic_with_interval(
    values: Sequence[float], statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]], name: str, seed: int
) -> dict[str, float]:
    """A statistic of rows of cases, under `name`, with `ci95_low` and `ci95_high`."""
    data = np.asarray(values, dtype=float)
    picks = np.random.default_rng(seed).integers(0, len(data), (RESAMPLES, len(data)))
    low, high = np.percentile(statistic(data[picks]), [2.5, 97.5])
    return {name: float(statistic(data[None])[0]), "ci95_low": float(low), "ci95_high": float(high)}
