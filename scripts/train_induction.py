"""Train the induction model whose weights ship (seed 0) and write them. `make induction` runs it."""

# ruff: noqa: T201

from pathlib import Path

from safetensors.torch import save_file

from optrode.truth.induction import WEIGHTS, induction_task, token_accuracy, train_induction

PATH = Path(__file__).resolve().parents[1] / "src/optrode/truth" / WEIGHTS

if __name__ == "__main__":
    model = train_induction(0)
    save_file({name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}, PATH)
    print(f"{PATH.name}: right on {token_accuracy(model, induction_task(model, 64, 1)):.1%} of the tokens")
