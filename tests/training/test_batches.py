"""A batch is a function of seed and step, with the distributions it should have; data that do not fit are refused."""

import math

import pytest
import torch

from ddim_ode.data import DataError, to_float
from ddim_ode.training.batches import Batches, TrainError, load_data
from ddim_ode.training.train import TrainingRun
from tests.helpers.assertions import one_line, same
from tests.helpers.training import NETWORK, settings


def batches(count: int = 10, **changes: object) -> Batches:
    """`count` images of one grey level each, their number, with labels 0..2."""
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 8, 8)
    network = {**NETWORK, "num_classes": 3}
    config = settings(**{"model": {"network": network, "schedule": {"timesteps": 10}}, "batch_size": 4, **changes})
    return Batches(images, torch.arange(count) % 3, config)


def test_a_batch_is_a_function_of_seed_and_step():
    first = [batches()(step) for step in range(6)]
    torch.manual_seed(5)
    again = batches()
    for step in (5, 0, 3, 3):
        torch.rand(3)
        assert same(vars(again(step)), vars(first[step]))
    for step in range(5):
        assert not torch.equal(first[step].eps, first[step + 1].eps)


def test_every_seed_has_its_own_batches_and_its_own_dropout(folders, tmp_path):
    seeds = [0, 1, 2, 1000]
    drawn = [batches(seed=seed)(0) for seed in seeds]
    orders = [batches(count=100, seed=seed, batch_size=100).indices(0) for seed in seeds]
    for i in range(len(seeds)):
        for j in range(i):
            assert not torch.equal(drawn[i].eps, drawn[j].eps)
            assert not torch.equal(orders[i], orders[j])
    masks = []
    for seed in seeds[:2]:
        network = {**NETWORK, "dropout": 0.5}
        run = TrainingRun(settings(model={"network": network}, seed=seed), tmp_path / str(seed), folders["images"])
        run.net.register_forward_pre_hook(lambda *_: masks.append(torch.rand(4)))
        run.update()
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("size", [1, 3, 4, 10])
def test_every_epoch_is_a_permutation(size):
    ours = batches(count=10, batch_size=size)
    seen = torch.cat([ours.indices(step) for step in range(-(-30 // size))])[:30].reshape(3, 10)
    for epoch in seen:
        assert epoch.sort().values.tolist() == list(range(10))
    assert len({tuple(epoch.tolist()) for epoch in seen}) == 3


def test_a_batch_holds_the_images_it_names():
    ours = batches()
    for step in range(5):
        batch, rows = ours(step), ours.indices(step)
        assert torch.equal(batch.x0, to_float(ours.images[rows]))
        assert batch.x0.shape == batch.eps.shape == (4, 1, 8, 8)
        kept = batch.labels != 3
        assert torch.equal(batch.labels[kept], (rows % 3)[kept])
        assert (batch.t.dtype, batch.labels.dtype) == (torch.float64, torch.int64)
        assert batch.told == {}


def test_timesteps_and_noise_have_their_distributions():
    ours = batches(count=200, batch_size=200)
    drawn = [ours(step) for step in range(20)]
    times = torch.cat([batch.t for batch in drawn])
    counts = times.long().bincount(minlength=10)
    assert torch.equal(times, times.round())
    assert counts.shape == (10,)
    assert (counts - 400).abs().max() < 5 * math.sqrt(4000 * 0.1 * 0.9)
    eps = torch.cat([batch.eps for batch in drawn])
    assert abs(eps.mean().item()) < 5 / math.sqrt(eps.numel())
    assert eps.std().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("ends", [(0.001, 0.999), (0.25, 0.5)])
def test_times_of_a_flow_are_spread_between_its_ends(ends):
    schedule = {"name": "flow", "noise_range": ends}
    ours = batches(count=200, batch_size=200, model={"network": NETWORK, "schedule": schedule, "predicts": "flow"})
    share = (torch.cat([ours(step).t for step in range(20)]) - ends[0]) / (ends[1] - ends[0])
    counts = (10 * share).floor().long().bincount(minlength=10)
    assert counts.shape == (10,)
    assert (counts - 400).abs().max() < 5 * math.sqrt(4000 * 0.1 * 0.9)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_asked_share_of_labels_is_dropped(share):
    ours = batches(count=200, batch_size=200, label_dropout=share)
    dropped = torch.cat([ours(step).labels == 3 for step in range(20)])
    assert abs(dropped.float().mean().item() - share) <= 5 * math.sqrt(share * (1 - share) / 4000)


def told(**changes: object) -> Batches:
    """100 random images of 8 x 8, of which a network is told a noisy image of 4 x 2."""
    network = {**NETWORK, "condition": {"image": [1, 4, 2], "noise": True}}
    config = settings(**{"model": {"network": network}, "batch_size": 100, "augmentation": (0.2, 0.6), **changes})
    images = torch.randint(256, (100, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Batches(images, torch.arange(100) % 3, config)


def boxes(x: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """The means of boxes of so many pixels, by hand."""
    return x.unflatten(-1, (-1, wide)).unflatten(-3, (-1, high)).mean((-3, -1))


def test_what_is_told_is_the_image_in_boxes_with_the_noise_that_is_told():
    ours = told()
    batch = ours(3)
    low, level = boxes(batch.x0, 2, 4), batch.told["image_noise"]
    assert batch.told["image"].shape == (100, 1, 4, 2)
    assert level.shape == (100,)
    assert 0.2 <= level.min() < 0.25 < 0.55 < level.max() <= 0.6
    share = level[:, None, None, None]
    noise = (batch.told["image"] - (1 - share**2).sqrt() * low) / share
    assert abs(noise.mean().item()) < 5 / math.sqrt(noise.numel())
    assert noise.std().item() == pytest.approx(1, abs=0.1)
    assert abs(torch.corrcoef(torch.stack([noise.flatten(), low.flatten()]))[0, 1]) < 5 / math.sqrt(noise.numel())
    assert same(vars(told()(3)), vars(batch))
    assert not torch.equal(told(seed=1)(3).told["image"], batch.told["image"])


def test_without_noise_the_low_image_is_told_as_it_is():
    network = {**NETWORK, "condition": {"image": [1, 4, 2]}}
    batch = told(model={"network": network}, augmentation=(0.0, 0.0))(0)
    assert batch.told.keys() == {"image"}
    assert torch.allclose(batch.told["image"], boxes(batch.x0, 2, 4), atol=1e-6)


def test_what_is_told_changes_nothing_else():
    ours, plain = told()(2), told(model={"network": NETWORK}, augmentation=(0.0, 0.0))(2)
    assert same([ours.x0, ours.eps, ours.t, ours.labels], [plain.x0, plain.eps, plain.t, plain.labels])


def test_images_are_shrunk_before_they_are_learned():
    network = {**NETWORK, "shape": [1, 4, 4], "channels": [32]}
    ours = told(model={"network": network}, augmentation=(0.0, 0.0), shrink=2)
    x0 = ours(0).x0
    assert torch.allclose(x0, boxes(to_float(ours.images[ours.indices(0)]), 2, 2), atol=1e-6)


def test_a_sheet_is_told_of_images_of_its_classes():
    ours = told(augmentation=(0.0, 0.0))
    wanted = torch.tensor([2, 0, 2, 1, 0])
    found = ours.sheet(wanted, 5)["image"]
    low = boxes(to_float(ours.images), 2, 4)
    assert torch.allclose(found, low[[2, 0, 5, 1, 3]], atol=1e-6)
    assert torch.allclose(ours.sheet(None, 3)["image"], low[:3], atol=1e-6)


def test_half_of_a_batch_is_half_of_what_is_told():
    whole = told()(0)
    assert torch.equal(whole[1::2].told["image_noise"], whole.told["image_noise"][1::2])
    assert torch.equal(whole[1::2].to(torch.device("cpu")).told["image"], whole.told["image"][1::2])


def test_data_that_do_not_fit_are_refused(folders):
    classes = {"network": {**NETWORK, "num_classes": 2}}
    assert "is in no class; put it into a folder" in one_line(
        DataError, load_data, settings(model=classes), folders["images"]
    )
    assert "holds 3 folders, a class each; use num_classes: 3" in one_line(
        TrainError, load_data, settings(model=classes), folders["classes"]
    )
    fashion = folders["fashion-mnist"]
    assert "num_classes=2: fashion-mnist has 10 classes" in one_line(
        TrainError, load_data, settings(model=classes, data="fashion-mnist"), fashion
    )
    assert "fashion-mnist images are (1, 28, 28)" in one_line(
        TrainError, load_data, settings(data="fashion-mnist"), fashion
    )
    assert "shape=(1, 8, 8) and shrink=3 mean images of (1, 24, 24): fashion-mnist images are (1, 28, 28)" in one_line(
        TrainError, load_data, settings(data="fashion-mnist", shrink=3), fashion
    )
