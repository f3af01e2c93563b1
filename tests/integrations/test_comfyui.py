"""The nodes of ComfyUI, with a stand-in for what they ask of it, and the folder that it finds them by."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from ddim_ode import METHODS, grids, paths
from ddim_ode.grids import GridError
from ddim_ode.integrations import comfyui
from ddim_ode.integrations.charts import SamplerError
from ddim_ode.integrations.comfyui.install import MARK, InstallError, install, uninstall
from ddim_ode.integrations.comfyui.nodes import sigmas_for
from ddim_ode.integrations.k_diffusion import sampler
from tests.helpers.k_models import EdmSampling, FlowSampling, KModel, ModelSamplingDiscrete
from tests.helpers.mixtures import labelled
from tests.helpers.tensors import f64, normal

NODES = comfyui.NODE_CLASS_MAPPINGS
TABLE = paths.DiscreteVP.scaled_linear(1000, 0.00085, 0.012)
DISCRETE = ModelSamplingDiscrete(TABLE.sigma(torch.arange(1000, dtype=torch.float64)))


class KSampler:
    """What a node is to make: a sampler function and its options."""

    def __init__(self, sampler_function: Any, extra_options: Any = None):
        self.sampler_function = sampler_function


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.samplers", SimpleNamespace(KSAMPLER=KSampler))


def widgets(name: str) -> dict[str, Any]:
    """What a node's inputs are set to at first; of a model, nothing."""
    given = NODES[name].INPUT_TYPES()["required"]
    return {key: options["default"] for key, (_, options) in given.items() if "default" in options}


@pytest.mark.parametrize("name", NODES)
def test_a_node_has_all_that_comfyui_shows(name):
    node = NODES[name]
    assert comfyui.NODE_DISPLAY_NAME_MAPPINGS[name]
    assert node.CATEGORY
    assert node.DESCRIPTION
    assert callable(getattr(node, node.FUNCTION))
    assert len(node.RETURN_TYPES) == 1
    for kind, options in node.INPUT_TYPES()["required"].values():
        if isinstance(kind, list):
            assert options["default"] in kind
            assert options["tooltip"]


@pytest.mark.usefixtures("comfy")
@pytest.mark.parametrize("name", ["DdimOdeSampler", "DdimOdeAdaptiveSampler"])
def test_every_choice_makes_a_sampler_that_is_the_method_s(name):
    choices, _ = NODES[name].INPUT_TYPES()["required"]["method"]
    assert len(choices) == len(set(choices)) > 5
    model, x = KModel(labelled()), normal(2, 2, 3, seed=1) * 10
    s = f64([10.0, 3.0, 1.0, 0.3, 0.1, 0.0])
    for method in choices:
        options = widgets(name) | {"method": method}
        (made,) = NODES[name]().get_sampler(**options)
        assert isinstance(made, KSampler)
        if METHODS[method].deterministic and method != "dopri8":
            found = made.sampler_function(model, x, s, extra_args={}, callback=None, disable=True)
            assert torch.equal(found, sampler(method)(model, x, s, disable=True))


@pytest.mark.usefixtures("comfy")
def test_an_adaptive_node_hands_its_numbers_on():
    model, x = KModel(labelled()), normal(2, 2, 3, seed=1) * 10
    (made,) = NODES["DdimOdeAdaptiveSampler"]().get_sampler("adaptive", 1e-4, 300)
    found = made.sampler_function(model, x, f64([10.0, 0.1, 0.0]), disable=True)
    assert torch.equal(found, sampler("adaptive", tol=1e-4)(model, x, f64([10.0, 0.1, 0.0]), disable=True))


def test_without_comfyui_a_node_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "comfy.samplers", None)
    with pytest.raises(SamplerError, match=r"runs inside of ComfyUI, whose module comfy\.samplers is not here"):
        NODES["DdimOdeSampler"]().get_sampler("heun")


def patcher(sampling: Any) -> Any:
    """A MODEL, which says how it is sampled."""
    return SimpleNamespace(get_model_object={"model_sampling": sampling}.__getitem__)


@pytest.mark.parametrize("grid", grids.GRIDS)
def test_sigmas_of_a_discrete_model_are_the_grid_s(grid):
    (found,) = NODES["DdimOdeSigmas"]().get_sigmas(patcher(DISCRETE), grid, 12, 1.0)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), grids.make_grid(grid, TABLE, 12, "denoise"), rtol=1e-5)


@pytest.mark.parametrize("grid", ["uniform", "karras", "log_snr", "angle", "near_image", "logistic"])
def test_sigmas_of_other_models_go_from_their_largest_to_0(grid):
    edm = sigmas_for(EdmSampling(), grid, 10)
    assert (len(edm), float(edm[0]), float(edm[-1])) == (11, 10.0, 0.0)
    flow = sigmas_for(FlowSampling(), grid, 10)
    assert (len(flow), float(flow[0]), float(flow[-1])) == (11, 1.0, 0.0)
    for s in (edm, flow):
        assert (s.diff() < 0).all()


def test_a_flow_s_uniform_sigmas_are_even_in_its_time_and_others_go_by_it():
    found = sigmas_for(FlowSampling(), "uniform", 5)
    assert torch.allclose(found[:-1], torch.linspace(1.0, 0.001, 5), atol=1e-5)
    even = sigmas_for(FlowSampling(), "log_snr", 4)
    assert torch.allclose(even[:-1], torch.tensor([1.0, 0.1, 0.01, 0.001]), rtol=1e-5)


def test_less_denoise_is_the_end_of_a_longer_grid():
    whole = sigmas_for(DISCRETE, "karras", 20)
    assert torch.equal(sigmas_for(DISCRETE, "karras", 10, 0.5), whole[-11:])
    (none,) = NODES["DdimOdeSigmas"]().get_sigmas(patcher(DISCRETE), "karras", 10, 0.0)
    assert none.shape == (0,)


def test_a_grid_that_a_model_cannot_have_is_one_line():
    with pytest.raises(GridError, match="discrete timesteps"):
        sigmas_for(EdmSampling(), "quadratic", 10)


# --- the folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("comfy", "custom_nodes/another"):
        (tmp_path / "ComfyUI" / name).mkdir(parents=True)
    return tmp_path / "ComfyUI"


def loaded(place: Path) -> ModuleType:
    """As ComfyUI loads a folder of nodes: by a name that is its path."""
    spec = importlib.util.spec_from_file_location(str(place).replace(".", "_x_"), place / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inside(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


@pytest.mark.parametrize("given", ["", "custom_nodes"])
def test_what_is_installed_is_loaded_and_taken_away(folder, given):
    place = install(folder / given)
    assert place == folder / "custom_nodes" / "ddim-ode"
    assert inside(place) == ["__init__.py"]
    assert loaded(place).NODE_CLASS_MAPPINGS == NODES
    (place / "__init__.py").write_text(f"{MARK}, of an older version")
    assert loaded(install(folder / given)).NODE_DISPLAY_NAME_MAPPINGS == comfyui.NODE_DISPLAY_NAME_MAPPINGS
    assert uninstall(folder / given) == place
    assert inside(folder / "custom_nodes") == ["another"]


def test_a_link_to_the_package_is_loaded_too(folder):
    link = folder / "custom_nodes" / "nodes"
    link.symlink_to(Path(comfyui.__file__).parent)
    assert loaded(link).NODE_CLASS_MAPPINGS == NODES


def test_files_of_others_stay(folder):
    place = install(folder)
    (place / "notes.txt").write_text("mine")
    uninstall(folder)
    assert inside(place) == ["notes.txt"]
    with pytest.raises(InstallError, match="is not one that this command has written; move it away"):
        install(folder)
    (place / "__init__.py").write_text("NODE_CLASS_MAPPINGS = {}")
    with pytest.raises(InstallError, match="move it away"):
        install(folder)
    with pytest.raises(InstallError, match="nothing was taken away"):
        uninstall(folder)
    assert (place / "__init__.py").read_text() == "NODE_CLASS_MAPPINGS = {}"


def test_a_link_in_the_place_is_not_followed(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "custom_nodes" / "ddim-ode").symlink_to(tmp_path / "elsewhere")
    for change in (install, uninstall):
        with pytest.raises(InstallError, match="is not one that this command has written"):
            change(folder)
    assert inside(tmp_path / "elsewhere") == []


def test_a_folder_that_is_not_comfyui_s_is_refused(tmp_path):
    (tmp_path / "custom_nodes").mkdir()
    for given in (tmp_path, tmp_path / "custom_nodes", tmp_path / "missing"):
        with pytest.raises(InstallError, match="is not ComfyUI's; give the folder that has its custom_nodes"):
            install(given)
    (tmp_path / "models").mkdir()  # all that the desktop program has beside them
    assert install(tmp_path).is_dir()


def test_where_the_library_is_not_the_nodes_say_how_to_get_it(folder):
    file = install(folder) / "__init__.py"
    code = f"import runpy; runpy.run_path({str(file)!r})"
    ran = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, cwd=folder)
    assert f"no ddim_ode for ComfyUI's Python; run {sys.executable} -m pip install ddim_ode" in ran.stderr
