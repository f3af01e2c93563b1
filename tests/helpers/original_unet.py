"""The network of DDPM (Ho et al. 2020, App. B) with the names of modules that the DDIM code gives them."""

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from tests.helpers.foreign import randomised


class ResBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, c_emb: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, c_in, 1e-6), nn.GroupNorm(32, c_out, 1e-6)
        self.conv1, self.conv2 = nn.Conv2d(c_in, c_out, 3, 1, 1), nn.Conv2d(c_out, c_out, 3, 1, 1)
        self.temb_proj = nn.Linear(c_emb, c_out)
        self.nin_shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(swish(self.norm1(x)))
        h = h + self.temb_proj(swish(emb)).unsqueeze(-1).unsqueeze(-1)
        h = self.conv2(swish(self.norm2(h)))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class SelfAttention(nn.Module):
    """One head; softmax(q k / sqrt(c)) over positions, written out."""

    def __init__(self, c: int):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (m(h).flatten(2) for m in (self.q, self.k, self.v))
        weights = (torch.einsum("bci,bcj->bij", q, k) / math.sqrt(x.shape[1])).softmax(dim=2)
        return x + self.proj_out(torch.einsum("bij,bcj->bci", weights, v).reshape(x.shape))


class Resample(nn.Module):
    """Down: zeros on the right and below, stride 2. Up: each pixel four times."""

    def __init__(self, c: int, down: bool):
        super().__init__()
        self.down, self.conv = down, nn.Conv2d(c, c, 3, 2 if down else 1, 0 if down else 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.down:
            return self.conv(nn.functional.pad(x, (0, 1, 0, 1)))
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class OriginalUNet(nn.Module):
    def __init__(self, config: dict[str, Any]):
        super().__init__()
        model, size = config["model"], config["data"]["image_size"]
        ch, mult, count = model["ch"], model["ch_mult"], model["num_res_blocks"]
        self.ch, emb, levels = ch, 4 * ch, range(len(mult))
        attends = [size // 2**level in model["attn_resolutions"] for level in levels]

        def level_of(blocks: list[ResBlock], width: int, attend: bool, resample: dict[str, nn.Module]) -> nn.Module:
            level = nn.Module()
            level.block = nn.ModuleList(blocks)
            level.attn = nn.ModuleList(SelfAttention(width) for _ in blocks if attend)
            for name, module in resample.items():
                level.add_module(name, module)
            return level

        self.temb = nn.Module()
        self.temb.dense = nn.ModuleList([nn.Linear(ch, emb), nn.Linear(emb, emb)])
        self.conv_in = nn.Conv2d(model["in_channels"], ch, 3, 1, 1)
        sizes, current, down = [ch], ch, []
        for level in levels:
            blocks, width = [], ch * mult[level]
            for _ in range(count):
                blocks.append(ResBlock(current, width, emb))
                sizes.append(current := width)
            last = level == levels[-1]
            down.append(level_of(blocks, width, attends[level], {} if last else {"downsample": Resample(width, True)}))
            sizes += [] if last else [width]
        self.down = nn.ModuleList(down)
        self.mid = nn.Module()
        self.mid.block_1, self.mid.block_2 = (ResBlock(current, current, emb) for _ in range(2))
        self.mid.attn_1 = SelfAttention(current)
        up = []
        for level in reversed(levels):
            blocks, width = [], ch * mult[level]
            for _ in range(count + 1):
                blocks.append(ResBlock(current + sizes.pop(), width, emb))
                current = width
            up.insert(0, level_of(blocks, width, attends[level], {"upsample": Resample(width, False)} if level else {}))
        self.up = nn.ModuleList(up)
        self.norm_out = nn.GroupNorm(32, current, 1e-6)
        self.conv_out = nn.Conv2d(current, model["out_ch"], 3, 1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        half = self.ch // 2
        rates = torch.exp(torch.arange(half).to(x) * (-math.log(10_000) / (half - 1)))
        phases = t.to(x)[:, None] * rates
        emb = self.temb.dense[1](swish(self.temb.dense[0](torch.cat([phases.sin(), phases.cos()], dim=1))))
        h = self.conv_in(x)
        seen = [h]
        for level in self.down:
            for k, block in enumerate(level.block):
                h = block(h, emb)
                h = level.attn[k](h) if len(level.attn) else h
                seen.append(h)
            if hasattr(level, "downsample"):
                seen.append(h := level.downsample(h))
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h, emb)), emb)
        for level in reversed(self.up):
            for k, block in enumerate(level.block):
                h = block(torch.cat([h, seen.pop()], dim=1), emb)
                h = level.attn[k](h) if len(level.attn) else h
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(swish(self.norm_out(h)))


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


#: cifar10.yml of the DDIM code, scaled down
ORIGINAL: dict[str, Any] = {
    "data": {
        "dataset": "CIFAR10",
        "image_size": 16,
        "channels": 3,
        "logit_transform": False,
        "uniform_dequantization": False,
        "gaussian_dequantization": False,
        "random_flip": True,
        "rescaled": True,
    },
    "model": {
        "type": "simple",
        "in_channels": 3,
        "out_ch": 3,
        "ch": 32,
        "ch_mult": [1, 2, 2],
        "num_res_blocks": 1,
        "attn_resolutions": [8],
        "dropout": 0.1,
        "var_type": "fixedlarge",
        "ema_rate": 0.9999,
        "ema": True,
        "resamp_with_conv": True,
    },
    "diffusion": {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02, "num_diffusion_timesteps": 1000},
    "training": {"batch_size": 128, "n_epochs": 10000},
    "sampling": {"batch_size": 64, "last_only": True},
    "optim": {"optimizer": "Adam", "lr": 0.0002, "eps": 0.00000001},
}


def original(config: dict[str, Any] = ORIGINAL, seed: int = 0) -> OriginalUNet:
    with torch.random.fork_rng():
        net = OriginalUNet(config)
    randomised(net, seed)
    return net


RAW, EMA = 1, 2  # seeds


def states(ema: bool = True) -> list[Any]:
    """What the DDIM code saves: the model (DataParallel), its optimizer, epoch, step and the averages."""
    net = original(seed=RAW)
    optimizer = torch.optim.Adam([p.requires_grad_() for p in net.parameters()])
    raw = {f"module.{name}": value.detach() for name, value in net.state_dict().items()}
    averages = {name: value.detach() for name, value in original(seed=EMA).named_parameters()}
    return [raw, optimizer.state_dict(), 3, 1000] + ([averages] if ema else [])


def write_original(folder: Path, config: dict[str, Any] = ORIGINAL, found: Any = None, name: str = "ckpt.pth") -> Path:
    """A folder of the code: config.yml and a checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    torch.save(states() if found is None else found, folder / name)
    return folder
