"""The calculated collectives of an iteration are those that a step of two processes makes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from all_reduce import Collectives, collectives, table
from cardigan.overrides import override
from cardigan.recipes import config_for

COUNTING = """
import json, sys
import torch
from torch import distributed
from cardigan.data.datasets import open_datasets
from cardigan.experiment import build
from cardigan.overrides import override
from cardigan.recipes import config_for
from cardigan.training.devices import open_devices
from cardigan.training.inputs import step_inputs
from cardigan.training.loop import make_step
from cardigan.training.schedule import step_kind
config = override(config_for("mnist", sys.argv[1]), json.loads(sys.argv[2]))
devices = open_devices(config)
datasets = open_datasets(config.data)
state = build.build_state(config, build.build_spec(config, datasets.train), devices)
batches, _ = build.build_batches(config, datasets, devices)
step = make_step(state, batches, build.build_step_config(config, devices))
sizes, all_reduce = [], distributed.all_reduce
def counted(tensor, *arguments, **options):
    sizes.append(tensor.nbytes)
    return all_reduce(tensor, *arguments, **options)
distributed.all_reduce = counted
for number in range(config.n_critic):
    images_seen = number * config.batch_size
    step(step_inputs(config, batches, images_seen, devices, None), step_kind(config, images_seen))
if devices.process_group.is_main:
    print(json.dumps(sizes))
devices.process_group.destroy()
"""
SMALL = {"batch_size": 8, "generator.width": 2, "discriminator.width": 2, "device": "cpu", "precision": "fp32"}


def settings(recipe: str) -> dict[str, object]:
    return {**SMALL, **({"augment.operations": "color", "augment.target": 0.6} if recipe == "mnist" else {})}


@pytest.mark.parametrize("recipe", ["tutorial", "mnist", "sngan"])
def test_collectives_are_those_of_a_step(tmp_path, recipe):
    script = tmp_path / "counting.py"
    script.write_text(COUNTING)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    process = subprocess.run(  # noqa: PLW1510 - the assertion shows its output
        [*launcher, recipe, json.dumps(settings(recipe))],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.returncode == 0, process.stderr
    config = override(config_for("mnist", recipe), settings(recipe))
    sizes, found = json.loads(process.stdout), collectives(config)
    num_others = found.num_others - 1 / 16  # a step alone does not exchange reasons for stopping
    assert len(sizes) == config.n_critic * (found.num_gradients + found.num_batch_norms + num_others)
    num_losses = config.n_critic * found.num_gradients  # each loss travels with its gradients
    expected = 4 * (found.num_parameters + num_others) + found.batch_norm_bytes
    assert sum(sizes) == pytest.approx(config.n_critic * expected + 4 * num_losses)


def test_batch_norm_is_counted():
    found = collectives(config_for("mnist", "tutorial"))
    assert found.num_batch_norms == 2 * 4 + 6 * 3
    assert found.batch_norm_bytes == 24 * (1024 + 512 + 256 + 128) + 72 * (256 + 512 + 1024)


def test_milliseconds_are_bandwidth_and_latency():
    found = Collectives(2.0, 1_000_000, 3.0, 32_000, 1.0)
    expected = 1e3 * 1.5 * (4_000_000 + 32_000) / 50e9 + 6 * 4 * 0.02
    assert found.milliseconds(4, "fp32", 50.0, 20.0) == pytest.approx(expected)


def test_guide_has_the_table_of_the_command():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "scale.md").read_text()
    rows = [line for line in table("tutorial", [3.6, 29.0], 50.0, 20.0).splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 5 and all(row in guide for row in rows)
