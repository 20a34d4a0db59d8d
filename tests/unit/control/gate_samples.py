"""One gate of each kind that an artefact can hold, for the tiny Llama (width 48, 6 heads of 8), by kind."""

import torch

import optrode as op
from optrode.control.adapter_import import Adapted
from optrode.gate import conditions, maps
from optrode.gate.kinds import gate_of
from optrode.gate.rules import rules
from optrode.model.names import parse

RESID, Z = "blocks.1.resid_post", "blocks.1.attn.z"


def drawn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


def actuators(dtype=torch.float32):
    def made(*shape):
        return drawn(*shape, dtype=dtype)

    rotation = torch.linalg.qr(drawn(48, 2)).Q.T.to(dtype)
    module = "module:model.layers.1.mlp.down_proj"
    adapter = Adapted(made(48, 2), made(2, 56), parse(f"{module}.in"), made(48))
    return {
        "adapter": gate_of(f"{module}.out", adapter, strength=0.5, scope="generated"),
        "add": op.add(RESID, made(48), strength=0.3),
        "affine": op.affine(Z, made(8, 8), made(8)),
        "clamp": op.clamp("blocks.*.mlp.post[feature=3:5]", low=-0.5, high=0.25),
        "low_rank": maps.low_rank(RESID, rotation, made(2, 48), made(2)),
        "project_out": op.project_out("blocks.0:2.attn_out", made(2, 48), scope="generated"),
        "rescale": maps.rescale("blocks.2.ln1", made(48), made(48), low=-made(48).abs(), high=made(48).abs()),
        "scale": op.scale("blocks.0.attn.z[head=1|4]", 0.1, scope="prompt", detach=True),
        "scale_heads": maps.scale_heads(Z, made(6)),
        "zero": op.zero("blocks.2.mlp_out", strength=0.5),
    }


def further(dtype=torch.float32):
    """More than one form of a kind."""
    return {
        "clamp to a vector": op.clamp(RESID, drawn(48, dtype=dtype)),
        "clamp to a number": op.clamp(Z, 0.5),
        "affine without bias": op.affine(RESID, drawn(48, 48, dtype=dtype)),
        "rescale everywhere": maps.rescale(RESID, drawn(48, dtype=dtype), drawn(48, dtype=dtype)),
        "membrane": maps.membrane(RESID, drawn(48, dtype=dtype), drawn(48, dtype=dtype)),
    }


def openness():
    site = "blocks.0.resid_post"
    near = conditions.cosine(site, drawn(48), below=0.9)
    soft = conditions.probe(site, drawn(48), 0.3)
    return {
        "soft probe": soft,
        "probe latched": conditions.probe(site, drawn(48), above=0.5, read="prompt", pool="mean", hold=2),
        "probe of the token before": conditions.probe("blocks.2.resid_post", drawn(48), below=0.7, read="previous"),
        "probe in a first pass": conditions.probe("blocks.2.resid_post", drawn(48), read="first_pass"),
        "cosine": conditions.cosine(site, drawn(48), above=-0.1, projected=True),
        "chance": conditions.chance((3, 5), above=0.001),
        "rules": rules({"a": soft, "b": near}, ["a or not b -> c"], opens="c", hold=1),
    }
