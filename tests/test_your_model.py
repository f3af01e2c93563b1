"""The recipes of docs/your_model.md, each run on a tiny model, and what has come of it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from torch import Tensor, nn

from ddim_ode import paths
from ddim_ode.integrations.diffusers import ODEScheduler
from ddim_ode.models.denoiser import Denoiser
from tests.helpers import foreign
from tests.helpers.denoising import NET, TextPipe, pipeline, text_unet
from tests.helpers.guided_unet import write_guided
from tests.helpers.original_unet import write_original
from tests.helpers.tables import linear_table

PAGE = Path(__file__).parents[1] / "docs" / "your_model.md"
Names = dict[str, Any]


def recipes() -> dict[str, str]:
    """Heading -> program, of the sections that have one."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {section.partition("\n")[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL) for section in sections}
    return {heading: code for heading, blocks in found.items() for code in blocks}


class EDM(nn.Module):
    """D(x, sigma, one_hot) of white noise that is the brighter the higher its class."""

    img_channels, img_resolution, label_dim = 1, 8, 3

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor) -> Tensor:
        mean = 0.2 * class_labels @ torch.arange(3.0)
        return (x + sigma.reshape(-1, 1, 1, 1) ** 2 * mean.reshape(-1, 1, 1, 1)) / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def unet(x: Tensor, t: Tensor) -> Tensor:
    return NET(x, t).sample


def k_diffusion(x: Tensor, sigma: Tensor, mapping_cond: None, class_cond: Tensor) -> Tensor:
    return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)


def shape_and_nfe(nfe: int) -> Callable[[Names], None]:
    def check(names: Names) -> None:
        assert names["sol"].x.shape == (4, 1, 8, 8)
        assert names["sol"].nfe.tolist() == [nfe] * 4

    return check


def classes_are_told_apart(names: Names) -> None:
    # Its flow keeps the noise and moves the mean to that of the class, here the third.
    shape_and_nfe(35)(names)
    assert names["sol"].x.mean() == pytest.approx(0.4, abs=0.2)


def images_are_told_and_exaggerated(names: Names) -> None:
    shape_and_nfe(20)(names)
    twice = 2 * names["images"]  # null + 2 (image - null), and null is 0
    torch.testing.assert_close(names["sol"].x, twice, rtol=0, atol=1e-3)
    assert torch.equal(names["back"], names["images"])


def noise_is_taken_away(names: Names) -> None:
    # A straight line from z to 0 at constant speed.
    shape_and_nfe(20)(names)
    torch.testing.assert_close(names["sol"].x, torch.zeros(4, 1, 8, 8), rtol=0, atol=1e-5)


def adaptive_ends(names: Names) -> None:
    assert names["sol"].converged.all()
    assert (names["vp"].predicts, names["ve"].path.sigma_max) == ("score", 50)


def latents_come_back(names: Names) -> None:
    assert names["images"].shape == (4, 1, 16, 16)
    assert torch.equal(names["back"], names["auto"].to_image(names["z"]))


def prompts_differ(names: Names) -> None:
    assert names["images"].shape == (4, 1, 16, 16)
    assert names["sol"].nfe.tolist() == [40] * 4
    assert names["model"].num_classes == 2


def pictures_of_sample(names: Names) -> None:
    scheduler = names["pipe"].scheduler
    assert (type(scheduler), len(scheduler.timesteps)) == (ODEScheduler, 17)
    assert names["images"].shape == (4, 1, 8, 8)


TEXT = TextPipe(text_unet())
PHOTOS = torch.randint(256, (2, 1, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LATENT_MODEL = Denoiser(lambda x, t: 0.3 * x, paths.DiscreteVP.linear(), "velocity", (2, 8, 8))

#: heading -> (the names that the program is given, what must hold afterwards)
RECIPES: dict[str, tuple[Names, Callable[[Names], None]]] = {
    "A network with discrete timesteps": ({"net": unet, "alphas_cumprod": linear_table()}, shape_and_nfe(20)),
    "A network that is told more than a label": ({}, images_are_told_and_exaggerated),
    "v-prediction": (
        {"net": lambda x, t: 0 * x, "other_net": unet, "alphas_cumprod": [*linear_table()[:-1], 0.0]},
        shape_and_nfe(20),
    ),
    "EDM": ({"net": EDM()}, classes_are_told_apart),
    "k-diffusion": ({"net": k_diffusion}, shape_and_nfe(20)),
    "Flow matching and rectified flow": (
        {"net": lambda x, t: -x / (1 - t.reshape(-1, 1, 1, 1)).to(x)},
        noise_is_taken_away,
    ),
    "Score networks": (
        {"score": lambda x, t: -x, "other_score": lambda x, t: -x / (1 + (0.01 * 5000 ** t.reshape(-1, 1, 1, 1)) ** 2)},
        adaptive_ends,
    ),
    "A pipeline of diffusers": ({"pipe": DDPMPipeline(NET, DDPMScheduler())}, shape_and_nfe(20)),
    "Latents": ({"pipe": TEXT, "model": LATENT_MODEL, "photos": PHOTOS}, latents_come_back),
    "Prompts": ({"pipe": TEXT}, prompts_differ),
    "Our methods in a pipeline": ({"pipe": pipeline(DDPMScheduler())}, pictures_of_sample),
}


def folder_of_diffusers(folder: Path) -> None:
    foreign.pipeline(folder, foreign.unet2d(foreign.LAYOUTS["attention in the middle"]))


#: heading -> (what writes the folder that the program loads, the kind of it that `load` tells)
FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "A folder of diffusers": (folder_of_diffusers, "diffusers"),
    "A checkpoint of the DDIM or DDPM code": (write_original, "DDIM code"),
    "A checkpoint of guided-diffusion": (write_guided, "guided-diffusion code"),
}


def run(heading: str, given: Names) -> Names:
    names = {"__name__": "example", **given}
    exec(recipes()[heading], names)
    return names


@pytest.mark.parametrize("heading", RECIPES)
def test_the_recipe_works(heading):
    given, check = RECIPES[heading]
    check(run(heading, given))


@pytest.mark.parametrize("heading", FOLDERS)
def test_the_recipe_of_a_folder_works(heading, tmp_path):
    write, kind = FOLDERS[heading]
    write(tmp_path)
    names = run(heading, {"folder": tmp_path})
    assert names["model"].provenance.kind == kind
    assert names["sol"].nfe.tolist() == [20] * 4
    assert names["sol"].x.shape == (4, *names["model"].shape)


def test_every_recipe_is_run():
    programs = re.findall(r"```python\n", PAGE.read_text())
    assert list(recipes()) == [*FOLDERS, *RECIPES]
    assert len(programs) == len(FOLDERS) + len(RECIPES)
