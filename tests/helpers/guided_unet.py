"""The network of Dhariwal & Nichol 2021 (Sec. 3, App. B) with the names of modules that guided-diffusion gives them."""

import math
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from tests.helpers.foreign import randomised

FLAGS: dict[str, Any] = {
    "image_size": 16,
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": "1,2,2",
    "attention_resolutions": "8,4",
    "num_heads": 2,
    "learn_sigma": True,
    "class_cond": True,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}


class Sequence(nn.Sequential):
    """Of modules of which some want the embedding too."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for module in self:
            x = module(x, emb) if isinstance(module, Residual) else module(x)
        return x


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, c_emb: int, flags: dict[str, Any], direction: str = ""):
        super().__init__()
        self.direction, self.scale_shift = direction, flags["use_scale_shift_norm"]
        self.in_layers = nn.Sequential(nn.GroupNorm(32, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(c_emb, c_out * (2 if self.scale_shift else 1)))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, c_out), nn.SiLU(), nn.Dropout(0.1), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def resize(self, x: Tensor) -> Tensor:
        if self.direction == "down":
            return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if self.direction == "up" else x

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.in_layers[2](self.resize(self.in_layers[:2](x)))
        added = self.emb_layers(emb)[..., None, None]
        if self.scale_shift:
            scale, shift = added.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + added)
        return self.skip_connection(self.resize(x)) + h


class Attention(nn.Module):
    def __init__(self, c: int, flags: dict[str, Any]):
        super().__init__()
        per_head = flags.get("num_head_channels", -1)
        self.heads = flags["num_heads"] if per_head == -1 else c // per_head
        self.new_order = flags.get("use_new_attention_order", False)
        self.norm, self.qkv, self.proj_out = nn.GroupNorm(32, c), nn.Conv1d(c, 3 * c, 1), nn.Conv1d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, *size = x.shape
        flat = x.reshape(b, c, -1)
        qkv, heads, width = self.qkv(self.norm(flat)), self.heads, c // self.heads
        if self.new_order:
            q, k, v = (part.reshape(b * heads, width, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(b * heads, 3 * width, -1).split(width, dim=1)
        weights = torch.softmax(torch.bmm(q.transpose(1, 2), k) / math.sqrt(width), dim=-1)
        h = torch.bmm(v, weights.transpose(1, 2)).reshape(b, c, -1)
        return (flat + self.proj_out(h)).reshape(b, c, *size)


class Down(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.op = nn.Conv2d(c, c, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Up(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class GuidedUNet(nn.Module):
    def __init__(self, flags: dict[str, Any]):
        super().__init__()
        self.ch = ch = flags["num_channels"]
        emb, mult = 4 * ch, [int(m) for m in flags["channel_mult"].split(",")]
        attended = [int(r) for r in flags["attention_resolutions"].split(",")]
        block, last = flags["resblock_updown"], len(mult) - 1
        self.time_embed = nn.Sequential(nn.Linear(ch, emb), nn.SiLU(), nn.Linear(emb, emb))
        if flags["class_cond"]:
            self.label_emb = nn.Embedding(1000, emb)
        inputs, widths, current, size = [Sequence(nn.Conv2d(3, ch, 3, padding=1))], [ch], ch, flags["image_size"]
        for level, m in enumerate(mult):
            for _ in range(flags["num_res_blocks"]):
                layers = [Residual(current, m * ch, emb, flags)]
                current = m * ch
                inputs.append(Sequence(*layers, *[Attention(current, flags)] * (size in attended)))
                widths.append(current)
            if level < last:
                inputs.append(Sequence(Residual(current, current, emb, flags, "down") if block else Down(current)))
                widths.append(current)
                size //= 2
        self.input_blocks = nn.ModuleList(inputs)
        middle = (
            Residual(current, current, emb, flags),
            Attention(current, flags),
            Residual(current, current, emb, flags),
        )
        self.middle_block = Sequence(*middle)
        outputs = []
        for level, m in reversed(list(enumerate(mult))):
            for k in range(flags["num_res_blocks"] + 1):
                layers = [Residual(current + widths.pop(), m * ch, emb, flags)]
                current = m * ch
                layers += [Attention(current, flags)] * (size in attended)
                if level and k == flags["num_res_blocks"]:
                    layers.append(Residual(current, current, emb, flags, "up") if block else Up(current))
                    size *= 2
                outputs.append(Sequence(*layers))
        self.output_blocks = nn.ModuleList(outputs)
        channels = 6 if flags["learn_sigma"] else 3
        self.out = nn.Sequential(nn.GroupNorm(32, current), nn.SiLU(), nn.Conv2d(current, channels, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        half = self.ch // 2
        phases = t.to(x)[:, None] * torch.exp(-math.log(10_000) * torch.arange(half).to(x) / half)
        emb = self.time_embed(torch.cat([phases.cos(), phases.sin()], dim=1))
        if y is not None:
            emb = emb + self.label_emb(y)
        h, seen = x, []
        for module in self.input_blocks:
            h = module(h, emb)
            seen.append(h)
        h = self.middle_block(h, emb)
        for module in self.output_blocks:
            h = module(torch.cat([h, seen.pop()], dim=1), emb)
        return self.out(h)


def guided(flags: dict[str, Any], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        net = GuidedUNet(flags)
    return randomised(net, seed)


def write_guided(folder: Path, name: str = "model.pt", state: Any = None, **changes: Any) -> Path:
    """A folder of the code: flags.yaml and weights."""
    flags = FLAGS | changes
    (folder / "flags.yaml").write_text(yaml.safe_dump(flags))
    torch.save(guided(flags).state_dict() if state is None else state, folder / name)
    return folder
