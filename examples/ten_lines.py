"""Find and prove a circuit, then switch one of its heads off while the model writes."""

import optrode as op

model = op.load("smollm2")
task = op.tasks.ioi(model, n=16, random_seed=0)
others = op.tasks.ioi(model, n=16, random_seed=1)
circuit = op.find(model, task)
proof = op.prove(model, others, circuit)
op.report(task, circuit, proof).save("runs/example/report.html")
print(f"{circuit.size} of {circuit.n_all} nodes keep {proof.faithfulness:.2f}; random ones at most {max(proof.random):.2f}")

with op.gates(model, op.zero(circuit.heads[0].node)):
    print(model.generate("When Mary and John went to the store, John gave a drink to", max_new_tokens=3))
