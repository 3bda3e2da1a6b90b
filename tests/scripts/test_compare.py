"""The comparison with the reference from end to end; the checkout is made up, of plain torch SGD."""

import pytest
from bench.step import Checkout, compare
from bench.worlds import digits

PRODUCTS = 60
NETWORK = """
from torch import nn

def ResNet18(n):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, n))
"""
SCRIPT = """
import argparse, copy, time
import torch
import torch.nn.functional as F
from torchvision import datasets
from ResNet_CIFAR10 import ResNet18
from PyHessian.pyhessian import hessian

parser = argparse.ArgumentParser()
for name in ("--lr", "--finetune_batch_size", "--unlearn_batch", "--finetune_epochs"):
    parser.add_argument(name, type=float)
args = parser.parse_args()
size = int(args.finetune_batch_size)
trainset_list = list(datasets.CIFAR10())

def stacked(points):
    return torch.stack([x for x, _ in points]), torch.tensor([y for _, y in points])

def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])

batches = [stacked(trainset_list[at : at + size]) for at in range(0, len(trainset_list), size)]
start = ResNet18(10)
start.load_state_dict(torch.load("Final_pretrained_models/resnet_cifar10_regular_32_10.pth")["net"])
w_0 = flat(start)
loss = F.cross_entropy(start(batches[0][0]), batches[0][1])
g_0 = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(start.parameters()))])
M, R = copy.deepcopy(start), copy.deepcopy(start)
optimizers = {m: torch.optim.SGD(m.parameters(), lr=args.lr, momentum=0.9, weight_decay=5e-4) for m in (M, R)}
for ep in range(int(args.finetune_epochs)):
    for main_idx, (inputs, labels) in enumerate(batches):
        M.train()
        for model in (M, R) if main_idx else (M,):
            optimizers[model].zero_grad()
            F.cross_entropy(model(inputs), labels).backward()
            optimizers[model].step()
        M.eval()
        hessian(M, F.cross_entropy, data=stacked(trainset_list[:512]), cuda=True).eigenvalues()
        #Now, save the weights of both
        weights = flat(M)
        #Now, get M''
        time.sleep(0.3)
        M_unlearned_tensor = weights + (ep + 1) * args.lr * g_0
        verification_error = torch.linalg.norm(M_unlearned_tensor - flat(R))
        delta_weights = torch.linalg.norm(weights - w_0)
        #print('rolling unlearning error is ', 0)
"""
HESSIAN = f"""
import torch

def hessian_vector_product(gradients, parameters, vector):
    return torch.autograd.grad(gradients, parameters, grad_outputs=vector, retain_graph=True)

class hessian:
    def __init__(self, model, criterion, data, cuda):
        assert not cuda
        self.parameters = list(model.parameters())
        self.gradients = torch.autograd.grad(criterion(model(data[0]), data[1]), self.parameters, create_graph=True)

    def eigenvalues(self):
        vector = [torch.randn_like(p) for p in self.parameters]
        for _ in range({PRODUCTS}):
            length = torch.sqrt(sum((v * v).sum() for v in vector))
            vector = [v / length for v in vector]
            product = hessian_vector_product(self.gradients, self.parameters, vector)
            value = sum((v * p).sum() for v, p in zip(vector, product))
            vector = product
        return [float(value)], [vector]
"""


@pytest.fixture
def checkout(tmp_path):
    reference, pyhessian = tmp_path / "reference", tmp_path / "library"
    for path, text in (
        (reference / "Unlearning" / "correlation_verification.py", SCRIPT),
        (reference / "ResNet_CIFAR10.py", NETWORK),
        (pyhessian / "pyhessian" / "hessian.py", HESSIAN),
        (pyhessian / "pyhessian" / "__init__.py", "from .hessian import hessian"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Checkout(reference, pyhessian)


def test_both_take_the_same_steps_and_their_seconds_are_told_apart(tmp_path, checkout):
    world = digits("linear", "dataset.train_size=96", "training.batch_size=32")
    (tmp_path / "work").mkdir()
    found = compare(world, 4, 48, 0.05, 2, checkout, tmp_path / "work", beside=3)
    ours, theirs = found["rows"]["ours"], found["rows"]["reference"]
    assert ([row["step"] for row in ours], [row["step"] for row in theirs]) == ([1, 2, 3, 4], [1, 2, 3])
    assert found["cut"] is None
    equal = found["equal"]
    assert equal["moved, ours from the reference's"] < 1e-5
    assert equal["v, ours from the reference's"] < 1e-4  # after one step it is rounding
    assert set(found["exact_sigma"]) == {1, 3}
    assert equal["sigma of ours from a tight Lanczos"] < 1e-3
    assert equal["sigma of reference from a tight Lanczos"] < 2e-2
    for row in theirs:
        assert row["products"] == PRODUCTS
        assert row["parts"]["M''"] > 0.3  # it sleeps there, and nowhere else
        assert row["seconds"] == pytest.approx(sum(row["parts"].values()))


def test_what_both_took_before_one_failed_is_kept(tmp_path, checkout):
    script = checkout.reference / "Unlearning" / "correlation_verification.py"
    script.write_text(SCRIPT.replace("time.sleep(0.3)", "assert main_idx < 2, 'no more'"))
    (tmp_path / "work").mkdir()
    world = digits("linear", "dataset.train_size=96", "training.batch_size=32")
    found = compare(world, 4, 48, 0.05, 1, checkout, tmp_path / "work", beside=4)
    assert "the process bench.reference ended early" in found["cut"]
    assert len(found["rows"]["reference"]) == 2
    assert set(found["exact_sigma"]) == {2}
