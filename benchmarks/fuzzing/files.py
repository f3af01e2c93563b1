"""Valid files of every format that is read, damaged or replaced, and read by what reads them."""

import contextlib
import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.fuzzing import command_line
from benchmarks.fuzzing.containers import RAN
from benchmarks.fuzzing.inputs import CLEAN, FINE, FOREIGN, SILENT, Fault, Input
from benchmarks.fuzzing.material import STUDY, Material, go_on, small
from benchmarks.fuzzing.mutate import damage
from ddim_ode import checkpoints, data, inversion
from ddim_ode.commands.shared import input_images
from ddim_ode.errors import DDIMError
from ddim_ode.latents import Latent
from ddim_ode.study.comparison import compare
from ddim_ode.study.results import Study
from ddim_ode.support.validation import read_yaml
from ddim_ode.training.config import TrainConfig
from ddim_ode.training.train import train

Read = Callable[[Path, Material], object]


@dataclass(frozen=True)
class Specimen:
    """A file of a valid folder, and what reads it, given a copy of the folder."""

    folder: Callable[[Material], Path]
    file: str | Callable[[Path], str]
    read: Read

    def name(self, folder: Path) -> str:
        """Where in the folder the file is."""
        return self.file if isinstance(self.file, str) else self.file(folder)


def load_model(folder: Path, material: Material) -> bytes:
    return small(checkpoints.load(folder))


def load_checkpoint(folder: Path, material: Material) -> bytes:
    return small(checkpoints.load(next(folder.glob("*.p*t*"), folder)))


def load_unet(folder: Path, material: Material) -> bytes:
    return load_model(folder, material)


def recalled(folder: Path, material: Material) -> bytes:
    out = folder / "recalled"
    if command_line.run(["sample", "--manifest", str(folder / "manifest.json"), "--out", str(out)]) == CLEAN:
        raise DDIMError("refused by the command")
    return (out / "samples.safetensors").read_bytes()


def decoded(folder: Path, material: Material) -> bytes:
    return inversion.decode(material.denoiser, Latent.load(folder / "x.safetensors")).x.numpy().tobytes()


def measured(folder: Path, material: Material) -> object:
    return compare(material.denoiser, **STUDY, out=folder).save(folder)


def loaded_study(folder: Path, material: Material) -> object:
    return Study.load(folder).save(folder.parent / "again")


def resumed(folder: Path, material: Material) -> bytes:
    return go_on(folder, material.images)


def trained(folder: Path, material: Material) -> object:
    config = read_yaml(TrainConfig, folder / "train.yaml")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return train(config, folder / "out", material.images, stop_at=1)


def pictures(folder: Path, material: Material) -> object:
    return data.image_folder(folder, (3, 8, 8))


def given_images(folder: Path, material: Material) -> object:
    files = sorted(folder.glob("*.*"))
    data.load_images(files, (1, 8, 8))
    return input_images.gather(material.denoiser, files)


def fashion(split: str) -> Read:
    return lambda folder, material: data.fashion_mnist(split, folder)


def a_cell(folder: Path) -> str:
    return f"cells/{sorted(file.name for file in (folder / 'cells').iterdir())[0]}"


UNET = "unet/diffusion_pytorch_model"
INDEX = f"{UNET}.safetensors.index.json"
SPECIMENS: dict[str, Specimen] = {
    "config.yaml": Specimen(lambda m: m.model, "config.yaml", load_model),
    "model.safetensors": Specimen(lambda m: m.model, "model.safetensors", load_model),
    "manifest.json": Specimen(lambda m: m.run, "manifest.json", recalled),
    "latent.safetensors": Specimen(lambda m: m.latent, "x.safetensors", decoded),
    "study.json": Specimen(lambda m: m.study, "study.json", measured),
    "cell.safetensors": Specimen(lambda m: m.study, a_cell, measured),
    "results.json": Specimen(lambda m: m.study, "results.json", loaded_study),
    "pictures.safetensors": Specimen(lambda m: m.study, "pictures.safetensors", loaded_study),
    "checkpoint.pt": Specimen(lambda m: m.training, "checkpoint.pt", resumed),
    "log.csv": Specimen(lambda m: m.training, "log.csv", resumed),
    "train.yaml": Specimen(lambda m: m.settings, "train.yaml", trained),
    "model_index.json": Specimen(lambda m: m.diffusers, "model_index.json", load_model),
    "scheduler_config.json": Specimen(lambda m: m.diffusers, "scheduler/scheduler_config.json", load_model),
    "unet_config.json": Specimen(lambda m: m.diffusers, "unet/config.json", load_unet),
    "unet.safetensors": Specimen(lambda m: m.diffusers, f"{UNET}.safetensors", load_model),
    "unet.bin": Specimen(lambda m: m.diffusers_bin, f"{UNET}.bin", load_model),
    "unet.index.json": Specimen(lambda m: m.diffusers_shards, INDEX, load_model),
    "shard.safetensors": Specimen(lambda m: m.diffusers_shards, "unet/part-0.safetensors", load_model),
    "ddim.yml": Specimen(lambda m: m.original, "config.yml", load_model),
    "ddim.pth": Specimen(lambda m: m.original, "ckpt.pth", load_model),
    "flags.yaml": Specimen(lambda m: m.guided, "flags.yaml", load_checkpoint),
    "guided.pt": Specimen(lambda m: m.guided, "model.pt", load_checkpoint),
    "png": Specimen(lambda m: m.pictures, "x.png", pictures),
    "jpg": Specimen(lambda m: m.pictures, "x.jpg", pictures),
    "bmp": Specimen(lambda m: m.pictures, "x.bmp", pictures),
    "webp": Specimen(lambda m: m.pictures, "x.webp", pictures),
    "given_png": Specimen(lambda m: m.images, "2.png", given_images),
    "idx_images": Specimen(lambda m: m.idx, "train-images-idx3-ubyte", fashion("train")),
    "idx_labels": Specimen(lambda m: m.idx, "train-labels-idx1-ubyte", fashion("train")),
    "idx_images.gz": Specimen(lambda m: m.idx, "t10k-images-idx3-ubyte.gz", fashion("test")),
    "idx_labels.gz": Specimen(lambda m: m.idx, "t10k-labels-idx1-ubyte.gz", fashion("test")),
}
SUBJECTS = tuple(SPECIMENS)
RESULTS: dict[str, bytes | None] = {}  # of undamaged files


def undamaged(what: str, specimen: Specimen, material: Material, scratch: Path) -> bytes | None:
    """The result of a valid file, computed once; None where it is no bytes."""
    if what not in RESULTS:
        shutil.copytree(specimen.folder(material), scratch / "valid")
        found = specimen.read(scratch / "valid", material)
        RESULTS[what] = found if isinstance(found, bytes) else None
    return RESULTS[what]


def says_digest(file: Path) -> bool:
    """Whether a file says a digest, of itself or of another."""
    ordinary = file.is_file() and not file.is_symlink() and file.stat().st_size < 2**26
    return ordinary and b"sha256" in file.read_bytes()


def make(subject: str, name: str, rng: random.Random | None, material: Material, scratch: Path) -> Input:
    """A damaged copy of a file among its undamaged neighbours, and the call that reads it."""
    specimen = SPECIMENS[subject]
    valid = specimen.folder(material)
    if specimen.read is load_unet:
        import_module("diffusers")  # what our UNet cannot be is wrapped, and to import it takes long
    if specimen.read in (measured, decoded, resumed, given_images):
        _ = material.denoiser, material.images
    folder, file = scratch / "files", specimen.name(valid)
    wanted = undamaged(f"files:{subject}", specimen, material, scratch) if says_digest(valid / file) else None
    shutil.copytree(valid, folder)
    others = [material.model / "model.safetensors", material.images / "0.png", material.model / "config.yaml"]
    others += [material.original / "ckpt.pth", material.run / "manifest.json", material.latent / "x.safetensors"]
    folder, done = damage(folder, file, rng, others) if rng else (folder, "as it was")
    sealed = wanted is not None and says_digest(folder / file)

    def run() -> str:
        try:
            found = specimen.read(folder, material)
        finally:
            if (scratch / RAN).exists():
                raise Fault(FOREIGN, "code of a file was run", done, f"files:{subject}")
        if sealed and found != wanted:
            raise Fault(SILENT, "another result", done, f"files:{subject}")
        return FINE

    return Input(name, f"{file}: {done}", run, refusals=(DDIMError,))
