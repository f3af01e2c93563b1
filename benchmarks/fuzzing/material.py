"""Valid files, small ones, made when first asked for and kept for the life of a worker's folder."""

import contextlib
import gzip
import io
import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddim_ode import checkpoints, inversion
from ddim_ode.checkpoints import guided, original
from ddim_ode.checkpoints.convert import convert
from ddim_ode.checkpoints.fitting import unfit
from ddim_ode.cli import main
from ddim_ode.models.config import ModelConfig
from ddim_ode.models.denoiser import Denoiser
from ddim_ode.models.unet import UNet, UNetConfig
from ddim_ode.study.comparison import compare
from ddim_ode.support.validation import parse
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.train import train

SHAPE = (1, 8, 8)
NETWORK: dict[str, Any] = {"shape": list(SHAPE), "channels": [32], "blocks": 1, "num_classes": 10}
MODEL: dict[str, Any] = {"network": NETWORK, "schedule": {"name": "cosine", "timesteps": 50}}
TRAINING: dict[str, Any] = {
    "model": {"network": NETWORK | {"num_classes": 0}, "schedule": {"name": "cosine", "timesteps": 10}},
    "data": "set by --data",
    "steps": 3,
    "batch_size": 2,
    "warmup": 1,
    "compile": False,
    "precision": "float32",
    "sample_every": 1000,
    "log_every": 1,
    "label_dropout": 0.0,
}
STUDY: dict[str, Any] = {"methods": ["ddim"], "nfe": [2], "seeds": range(2), "labels": 1, "reference_tol": 0.5}
ORIGINAL: dict[str, Any] = {
    "data": {"image_size": 8, "channels": 3},
    "model": {"in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1], "num_res_blocks": 1, "attn_resolutions": [8]},
    "diffusion": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_diffusion_timesteps": 50},
}
FLAGS: dict[str, Any] = {
    "image_size": 8,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1",
    "attention_resolutions": "8",
    "num_heads": 2,
    "use_new_attention_order": True,
}
IMAGES = {"png": {}, "jpg": {"quality": 90}, "bmp": {}, "webp": {"lossless": True}}


def numbers(*shape: int, seed: int = 0, high: int = 256) -> Tensor:
    """Bytes, always the same."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def small(model: Denoiser) -> bytes:
    """What a model answers to fixed noise, every bit of it."""
    x = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, dtype=torch.int64) if model.num_classes else None
    with torch.no_grad():
        found = model(x, min(max(1.0, model.sigma_min), model.sigma_max), labels)
    return found.data.numpy().tobytes() + found.noise.numpy().tobytes()


def go_on(out: Path, images: Path) -> bytes:
    """The weights and the log of a training run that goes on to its end, from where its folder is."""
    config = parse(TrainConfig, TRAINING, "settings")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model = train(config, out, images)
    log = [line.rpartition(",")[0] for line in (out / "log.csv").read_text().splitlines()]  # but for the speed
    return (model / "model.safetensors").read_bytes() + "\n".join(log).encode()


class Material:
    """The files, in a folder. Each property is the path of a valid file or folder, which is not to be changed."""

    def __init__(self, root: Path):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def _made(self, name: str, make: Callable[[Path], object]) -> Path:
        """A folder; one that a killed worker has not finished is made again."""
        place, begun = self.root / name, self.root / f"{name}.begun"
        if not place.exists():
            shutil.rmtree(begun, ignore_errors=True)
            begun.mkdir()
            make(begun)
            begun.rename(place)
        return place

    @cached_property
    def model(self) -> Path:
        """A folder of ours: config.yaml and model.safetensors."""

        def make(folder: Path) -> None:
            config = ModelConfig.model_validate(MODEL)
            checkpoints.save(folder, config, weights(config.network))

        return self._made("model", make)

    @cached_property
    def denoiser(self) -> Denoiser:
        """The model of that folder."""
        return checkpoints.load(self.model)

    @cached_property
    def images(self) -> Path:
        """Four images of 8 x 8 bytes."""

        def make(folder: Path) -> None:
            for i, pixels in enumerate(numbers(4, 8, 8)):
                Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")

        return self._made("images", make)

    @cached_property
    def pictures(self) -> Path:
        """One image in each format."""

        def make(folder: Path) -> None:
            image = Image.fromarray(numbers(8, 8).numpy())
            for kind, options in IMAGES.items():
                image.save(folder / f"x.{kind}", **options)

        return self._made("pictures", make)

    @cached_property
    def run(self) -> Path:
        """The folder of a run of `sample`."""

        def make(folder: Path) -> None:
            line = f"sample {self.model} --method ddim --nfe 3 --seeds 0,1 --label 1 --out {folder / 'r'}"
            with contextlib.redirect_stdout(io.StringIO()):
                assert main(line.split()) == 0

        return self._made("run", make) / "r"

    @cached_property
    def latent(self) -> Path:
        """A folder with a latent of two images, of integers."""

        def make(folder: Path) -> None:
            inversion.encode(self.denoiser, numbers(2, *SHAPE), nfe=3).save(folder / "x.safetensors")

        return self._made("latent", make)

    @cached_property
    def study(self) -> Path:
        """The folder of a study."""

        def make(folder: Path) -> None:
            compare(self.denoiser, **STUDY, out=folder / "s").save(folder / "s")

        return self._made("study", make) / "s"

    @cached_property
    def training(self) -> Path:
        """The folder of a training run at step 2 of 3."""

        def make(folder: Path) -> None:
            config = parse(TrainConfig, TRAINING, "settings")
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                train(config, folder / "t", self.images, stop_at=2)

        return self._made("training", make) / "t"

    @cached_property
    def settings(self) -> Path:
        """A folder with the YAML file of a training run."""
        return self._made("settings", lambda folder: (folder / "train.yaml").write_text(yaml.safe_dump(TRAINING)))

    @cached_property
    def diffusers(self) -> Path:
        """A folder of diffusers."""
        return self._made("diffusers", lambda folder: convert(str(self.model), folder / "d")) / "d"

    @cached_property
    def diffusers_bin(self) -> Path:
        """The same with weights of torch.save."""

        def make(folder: Path) -> None:
            file = self._copied(folder)
            torch.save(load_file(file), file.with_suffix(".bin"))
            file.unlink()

        return self._made("diffusers_bin", make) / "d"

    @cached_property
    def diffusers_shards(self) -> Path:
        """The same in two shards and an index."""

        def make(folder: Path) -> None:
            file = self._copied(folder)
            found, places = load_file(file), {}
            for part in range(2):
                shard = file.with_name(f"part-{part}.safetensors")
                keys = sorted(found)[part::2]
                save_file({key: found[key] for key in keys}, shard)
                places |= dict.fromkeys(keys, shard.name)
            file.with_suffix(".safetensors.index.json").write_text(json.dumps({"weight_map": places}))
            file.unlink()

        return self._made("diffusers_shards", make) / "d"

    def _copied(self, folder: Path) -> Path:
        shutil.copytree(self.diffusers, folder / "d")
        return folder / "d/unet/diffusion_pytorch_model.safetensors"

    @cached_property
    def original(self) -> Path:
        """A folder of the DDIM code."""

        def make(folder: Path) -> None:
            (folder / "config.yml").write_text(yaml.safe_dump(ORIGINAL))
            network = original.read_config(ORIGINAL, folder / "config.yml").network
            theirs = unfit(weights(network), original.names(network))
            torch.save([theirs, {"state": {}}, 3, 1000, theirs], folder / "ckpt.pth")

        return self._made("original", make)

    @cached_property
    def guided(self) -> Path:
        """A folder of guided-diffusion."""

        def make(folder: Path) -> None:
            (folder / "flags.yaml").write_text(yaml.safe_dump(FLAGS))
            network = guided.read_flags(FLAGS, folder / "flags.yaml")[0].network
            torch.save(unfit(weights(network), guided.names(network)), folder / "model.pt")

        return self._made("guided", make)

    @property
    def named(self) -> tuple[Path, ...]:
        """What command lines name: a model, images, the settings of a training run, a latent and a run."""
        return self.model, self.images, self.settings, self.latent, self.run

    @cached_property
    def idx(self) -> Path:
        """Fashion-MNIST's four files with three images, those of the test set gzipped."""

        def make(folder: Path) -> None:
            for prefix, pack in (("train", bytes), ("t10k", gzip.compress)):
                end = ".gz" if prefix == "t10k" else ""
                head = b"".join(n.to_bytes(4, "big") for n in (0x803, 3, 28, 28))
                pixels = head + bytes(numbers(3 * 784).tolist())
                (folder / f"{prefix}-images-idx3-ubyte{end}").write_bytes(pack(pixels))
                labels = b"".join(n.to_bytes(4, "big") for n in (0x801, 3)) + bytes((0, 5, 9))
                (folder / f"{prefix}-labels-idx1-ubyte{end}").write_bytes(pack(labels))

        return self._made("idx", make)


def weights(config: UNetConfig) -> dict[str, Tensor]:
    """Of a network, random ones that leave nothing at zero."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = UNet(config)
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=0.05)
    return {name: value.detach() for name, value in net.state_dict().items()}
