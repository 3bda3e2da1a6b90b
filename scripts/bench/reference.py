"""The authors' measured steps, one at a time: their script as it is, in a process of its own.

`python -m bench.reference JOB` runs `Unlearning/correlation_verification.py` of a checkout on our data and our w_0.
Nothing of their code is kept here. Lines that only note the time are put between lines of their script; the data set,
the device and the number of Hessian samples are given to it from outside.
"""

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torchvision

from bench.ours import READY, TAG, peak_mb
from unlearn.values.errors import UserError

SCRIPT = "Unlearning/correlation_verification.py"
# what begins before the line that starts so; the last one ends the step
SECTIONS = {
    "        M.train()": "train M and M'",
    "        M.eval()": "sigma",
    "        #Now, save the weights of both": "distances and rest",
    "        #Now, get M''": "M''",
    "        M_unlearned_tensor": "distances and rest",
    "        #print('rolling unlearning error is": None,
}


def check(reference: Path, pyhessian: Path) -> None:
    """Refuse folders that are no checkouts.

    Raises:
        UserError: a file is not where it should be.
    """
    for key, folder, file in (
        ("--reference", reference, SCRIPT),
        ("--reference", reference, "ResNet_CIFAR10.py"),
        ("--pyhessian", pyhessian, "pyhessian/hessian.py"),
    ):
        if not (folder / file).is_file():
            raise UserError(f"{key}={folder}: holds no {file}; give a checkout of the repository")
    marked((reference / SCRIPT).read_text(), str(reference))


def pyhessian_in(reference: Path) -> Path:
    """Find PyHessian inside a checkout, where the authors' script looks for it."""
    places = [reference / "PyHessian", reference / "Unlearning" / "PyHessian"]
    return next((place for place in places if place.is_dir()), places[0])


def marked(text: str, where: str) -> str:
    """Put notes of the time between the lines of the script.

    Raises:
        UserError: a line that it should have is missing or there twice.
    """
    lines = text.replace("[:512]", "[:BENCH_SAMPLES]").splitlines()
    for start, name in SECTIONS.items():
        at = [number for number, line in enumerate(lines) if line.startswith(start)]
        if len(at) != 1:
            raise UserError(f"--reference={where}: {SCRIPT} has no single line {start.strip()!r}; give commit 49e001f")
        lines.insert(at[0], f"        BENCH_MARK({name!r})")
    return "\n".join(lines)


class Finished(Exception):
    """As many steps as asked for were taken."""


class Watch:
    """Notes the time at each mark and reports at the end of a step."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.device = device
        self.steps, self.taken, self.products, self.eigenvalue = steps, 0, 0, float("nan")
        self.found: dict[str, Any] = {}
        self.parts: dict[str, float] = {}
        self.section: str | None = None
        self.since = time.perf_counter()

    def __call__(self, name: str | None) -> None:
        """Begin a section; None ends the step."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.section is not None:
            self.parts[self.section] = self.parts.get(self.section, 0.0) + now - self.since
        elif not self.taken:
            print(TAG + READY, flush=True)
        if name is None:
            self._report()
        elif self.section is None and (self.taken == self.steps or not sys.stdin.readline()):
            raise Finished
        self.section, self.since = name, time.perf_counter()

    def _report(self) -> None:
        self.taken += 1
        row = {
            "step": self.taken,
            "moved": float(self.found["delta_weights"]),
            "v": float(self.found["verification_error"]),
            "sigma": abs(self.eigenvalue),
            "products": self.products,
            "parts": self.parts,
            "seconds": sum(self.parts.values()),
            "peak_mb": peak_mb(self.device),
        }
        print(TAG + json.dumps(row), flush=True)
        self.parts, self.products = {}, 0


def images(path: str) -> type:
    """Give a class that stands in for torchvision's CIFAR10 and holds our tensors, normalised already."""
    saved = torch.load(path, weights_only=True)

    class Images(torch.utils.data.Dataset):
        def __init__(self, *_: object, **__: object) -> None: ...

        def __len__(self) -> int:
            return len(saved["labels"])

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return saved["inputs"][index], int(saved["labels"][index])  # list() ends at their IndexError

    return Images


def followed(watch: Watch) -> None:
    """Count PyHessian's products, and make it compute on the CPU where CUDA is not asked for."""
    package = importlib.import_module("PyHessian.pyhessian")
    theirs: type = package.hessian
    module = sys.modules[theirs.__module__]
    product = module.hessian_vector_product

    def counted(*arguments: object) -> object:
        watch.products += 1
        return product(*arguments)

    class Followed(theirs):
        def __init__(self, *arguments: object, **options: object) -> None:
            super().__init__(*arguments, **{**options, "cuda": watch.device.type == "cuda"})

        def eigenvalues(self, *arguments: object, **options: object) -> object:
            values, vectors = super().eigenvalues(*arguments, **options)
            watch.eigenvalue = float(values[-1])
            return values, vectors

    vars(module)["hessian_vector_product"] = counted
    vars(package)["hessian"] = Followed


def main() -> None:
    """Say that it is ready, then take one measured step for every line on stdin.

    The working directory is a new, empty folder.
    """
    job = json.loads(sys.argv[1])
    reference, here = Path(job["reference"]), Path.cwd()
    (here / "PyHessian").symlink_to(Path(job["pyhessian"]).resolve())
    sys.path[:0] = [str(here), str(here / "PyHessian"), str(reference)]
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)  # the start of their power iteration; they set no seed
    network = importlib.import_module("ResNet_CIFAR10").ResNet18(10).state_dict()
    given = torch.load(job["start"], weights_only=True)  # by order: the names differ
    folder = here / "Final_pretrained_models"
    folder.mkdir()
    device = torch.device(job["device"])
    names = [f"module.{name}" if device.type == "cuda" else name for name in network]  # there they use DataParallel
    torch.save({"net": dict(zip(names, given.values(), strict=True))}, folder / "resnet_cifar10_regular_32_10.pth")
    watch = Watch(job["steps"], device)
    vars(torchvision.datasets)["CIFAR10"] = images(job["images"])
    if device.type == "cpu":
        torch.cuda.is_available = lambda: False
        torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    followed(watch)
    sys.argv = [SCRIPT, f"--lr={job['lr']}", f"--finetune_batch_size={job['batch']}", "--unlearn_batch=0"]
    sys.argv.append(f"--finetune_epochs={job['steps']}")
    text = marked((reference / SCRIPT).read_text(), str(reference))
    watch.found = {"__name__": "__main__", "BENCH_MARK": watch, "BENCH_SAMPLES": job["samples"]}
    try:
        exec(compile(text, SCRIPT, "exec"), watch.found)
    except Finished:
        return


if __name__ == "__main__":
    main()
