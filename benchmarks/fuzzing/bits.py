"""Files that the library wrote, with one bit flipped: refused, or of the same result to the last bit."""

import random
import shutil
from pathlib import Path

from benchmarks.fuzzing import files
from benchmarks.fuzzing.files import Specimen, undamaged
from benchmarks.fuzzing.inputs import FINE, SILENT, Fault, Input
from benchmarks.fuzzing.material import STUDY, Material
from ddim_ode.checkpoints import load_safetensors
from ddim_ode.errors import DDIMError
from ddim_ode.study.comparison import compare
from ddim_ode.study.results import Study


def rows(folder: Path, material: Material) -> bytes:
    """What a study finds, but for what no two runs share."""
    found = compare(material.denoiser, **STUDY, out=folder)
    return repr([row.to_dict() | {"timing": None} for row in found.rows]).encode()


def results(folder: Path, material: Material) -> bytes:
    found = Study.load(folder)
    return repr([row.to_dict() for row in found.rows]).encode() + repr(found.settings).encode()


def pictures(folder: Path, material: Material) -> bytes:
    found = Study.load(folder).pictures
    return b"".join(found[key].numpy().tobytes() for key in sorted(found))


def samples(folder: Path, material: Material) -> bytes:
    found = load_safetensors(folder / "samples.safetensors")
    return b"".join(found[key].numpy().tobytes() for key in sorted(found))


SPECIMENS: dict[str, Specimen] = {
    "weights": Specimen(lambda m: m.model, "model.safetensors", files.load_model),
    "config": Specimen(lambda m: m.model, "config.yaml", files.load_model),
    "latent": Specimen(lambda m: m.latent, "x.safetensors", files.decoded),
    "cell": Specimen(lambda m: m.study, files.a_cell, rows),
    "pictures": Specimen(lambda m: m.study, "pictures.safetensors", pictures),
    "results": Specimen(lambda m: m.study, "results.json", results),
    "checkpoint": Specimen(lambda m: m.training, "checkpoint.pt", files.resumed),
    "manifest": Specimen(lambda m: m.run, "manifest.json", files.recalled),
    "samples": Specimen(lambda m: m.run, "samples.safetensors", samples),
}
SUBJECTS = tuple(SPECIMENS)


def make(subject: str, name: str, rng: random.Random | None, material: Material, scratch: Path) -> Input:
    """A copy with one bit flipped, and the comparison with what the valid file gives."""
    specimen = SPECIMENS[subject]
    valid = specimen.folder(material)
    wanted = undamaged(f"bits:{subject}", specimen, material, scratch)
    assert wanted is not None
    folder = scratch / "files"
    shutil.copytree(valid, folder)
    file = folder / specimen.name(valid)
    data = bytearray(file.read_bytes())
    at, bit = (rng.randrange(len(data)), rng.randrange(8)) if rng else (0, 0)
    if rng:
        data[at] ^= 1 << bit
        file.write_bytes(data)

    def run() -> str:
        if specimen.read(folder, material) != wanted:
            raise Fault(SILENT, "another result", f"bit {bit} of byte {at} of {len(data)}", f"bits:{subject}")
        return FINE

    return Input(name, f"{file.name}: bit {bit} of byte {at} of {len(data)}", run, refusals=(DDIMError,))
