"""The log of a training run, as a CSV file that a kill leaves whole."""

import csv
from io import StringIO
from pathlib import Path

from ddim_ode.support.files import replacing, reported
from ddim_ode.support.reading import read_text
from ddim_ode.training.batches import TrainError


class Log:
    """`log.csv`: step, mean loss and gradient norm since the last row, learning rate, images/s."""

    columns = ("step", "loss", "gradient_norm", "learning_rate", "images_per_second")

    def __init__(self, file: Path):
        self.file = file
        self.rows: list[tuple[int, float, float, float]] = []  # since the last row of the file; the checkpoint's too

    def open(self, step: int) -> None:
        """Keep the whole rows up to the checkpoint's step; those past it are written again."""
        kept = []
        if self.file.exists():
            lines = read_text(self.file, TrainError, remedy="remove it").splitlines()
            whole = (row for row in csv.reader(lines) if len(row) == len(self.columns) and row[0].isdecimal())
            kept = [row for row in whole if int(row[0][:18]) <= step]
        text = StringIO(newline="")
        csv.writer(text).writerows([self.columns, *kept])
        with replacing(self.file) as new:
            new.write(text.getvalue().encode())

    def add(self, step: int, loss: float, norm: float, speed: float) -> None:
        self.rows.append((step, loss, norm, speed))

    def write(self, rate: float) -> None:
        n = len(self.rows)
        loss, norm = (sum(r[i] for r in self.rows) / n for i in (1, 2))
        speed = n / sum(1 / r[3] for r in self.rows)
        with reported(self.file), self.file.open("a", newline="") as f:
            csv.writer(f).writerow([self.rows[-1][0], f"{loss:.6f}", f"{norm:.4f}", f"{rate:.3g}", f"{speed:.0f}"])
        self.rows.clear()
