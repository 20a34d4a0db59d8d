"""What a user is told about site names, patterns, prompts and recordings that are wrong."""

import pytest
import torch
from torch import nn

import optrode as op
from optrode.errors import BadFile, BadName, BadOption, NotRecorded, SiteUnavailable, UnknownSite, UnsupportedArchitecture
from optrode.model.names import parse
from optrode.model.source import from_source
from optrode.model.tiny import tiny
from optrode.site.saved import dtype_of, load_recording, save_recording
from tests.messages.conftest import PROMPT, refused


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("", ("it is empty", "blocks.3.attn.z[head=6]")),
        ("blocks.0.attn.z[head=3", ("brackets do not match",)),
        ("blocks.0.attn.z]", ("brackets do not match",)),
        ("blocks.0.attn.z[head]", ("'head' is not a selector of the form axis=index", "Nearest: head=...")),
        ("blocks.0.attn.z[hd=3]", ("'hd=3' is not a selector", "Nearest: head=...")),
        ("blocks.0.attn.z[]", ("'' is not a selector", "head=..., pos=..., src=...")),
        ("blocks.0.attn.z[head=x]", ("'x' is not an index", "3, -1, 2:5, * or 1|4")),
        ("blocks.0.attn.z[head=1||2]", ("'' is not an index",)),
        ("blocks.0.attn.z[pos=1.5]", ("'1.5' is not an index",)),
        ("blocks.0.attn.z[head=1, head=2]", ("axis 'head' is selected twice", "join them: head=1|4")),
        ("blocks.x.attn.z", ("'x' is not an index",)),
        ("blocks.0", ("'blocks.0' is not a site path", "blocks.3.resid_pre or embed")),
        ("blocks.0.Attn.z", ("'blocks.0.Attn.z' is not a site path",)),
        ("module:model.layers.0", ("which side", "Nearest: module:model.layers.0.in, module:model.layers.0.out")),
    ],
)
def test_bad_grammar(name, parts):
    with refused(BadName, f"site name {name!r}", *parts):
        parse(name)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("blocks.0.atn.z", ("the llama family has no such site", "Nearest: blocks.0.attn.z,", "site_names()")),
        ("blocks.*.resid", ("Nearest: blocks.*.resid_pre, blocks.*.resid_mid, blocks.*.resid_post",)),
        ("pos_embed", ("the llama family has no such site", "Nearest: embed")),
        ("resid_pre", ("this kind of site is in every block", "Nearest: blocks.*.resid_pre")),
        ("blocks.0.embed", ("this site is outside the blocks", "Nearest: embed")),
        ("blocks.7.resid_pre", ("layer 7 is out of range; the model has layers 0 to 2", "Nearest: blocks.2.resid_pre")),
        ("blocks.-4.resid_pre", ("layer -4 is out of range",)),
        ("blocks.0|9.resid_pre", ("layer 9 is out of range",)),
        ("blocks.3:9.resid_pre", ("the pattern matches no layer; the model has layers 0 to 2",)),
        ("blocks.0.attn.z[head=6]", ("head 6 at blocks.0.attn.z", "heads 0 to 5", "Nearest: blocks.0.attn.z[head=5]")),
        ("blocks.0.attn.z[head=2|9]", ("head 9 at blocks.0.attn.z",)),
        ("blocks.0.attn.k[head=2]", ("heads 0 to 1",)),
        ("blocks.0.resid_pre[head=1]", ("the site has the axes batch, pos, feature", "Nearest: pos, feature")),
        ("blocks.0.resid_pre[feature=48]", ("features 0 to 47",)),
        ("blocks.0.mlp.post[feature=99]", ("feature 99 at blocks.0.mlp.post", "features 0 to 55")),
        ("module:model.norm.out[feature=99]", ("feature 99", "features 0 to 47")),
    ],
)
def test_unknown_sites(model, name, parts):
    with refused(UnknownSite, *parts, by=model):
        op.record(model, PROMPT, name)


def test_the_same_holds_for_gates(model):
    for name in ("blocks.7.attn.z", "blocks.0.attn.z[head=6]", "blocks.0.mlp.post[feature=99]"):
        with refused(UnknownSite, "Nearest: blocks.", by=model), op.gates(model, op.zero(name)):
            model(PROMPT)


def test_one_whole_message(model):
    with refused(UnknownSite) as caught:
        op.record(model, PROMPT, "blocks.1.attn.y")
    assert str(caught.value) == (
        "[unknown-site] site blocks.1.attn.y of LlamaForCausalLM: the llama family has no such site. "
        "Nearest: blocks.1.attn.z, blocks.1.attn.v, blocks.1.attn.q. "
        "Next: model.site_names() or `optrode sites MODEL` lists every site."
    )


@pytest.mark.parametrize(
    ("architecture", "name", "reason"),
    [
        ("neox", "blocks.1.resid_mid", "attention and MLP run in parallel"),
        ("bert", "final_norm", "each block ends with its own norm"),
        ("bloom", "blocks.0.attn.scores", "attn.pattern is there"),
        ("mixtral", "blocks.*.mlp.post", "see mlp.router"),
    ],
)
def test_a_site_that_an_architecture_lacks_comes_with_the_reason(architecture, name, reason):
    lacking = from_source(tiny(architecture))
    with refused(SiteUnavailable, f"site {name}", reason, by=lacking):
        op.record(lacking, [[5, 9, 2]], name)


def test_a_base_model_has_no_logits():
    base = from_source(tiny("llama", has_head=False))
    with refused(SiteUnavailable, "base model without a head", by=base):
        op.record(base, [[5, 9, 2]], "logits")


def test_module_paths_that_do_not_exist(model):
    with refused(SiteUnavailable, "'model.layer.0.mlp'", "Nearest: model.layers.0.mlp", "--modules", by=model):
        op.record(model, PROMPT, "module:model.layer.0.mlp.out")
    with refused(SiteUnavailable, "selector head=1", "the axes batch, pos, feature", by=model):
        op.record(model, PROMPT, "module:lm_head.out[head=1]")


def test_the_generic_route_has_only_module_sites():
    own = from_source(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    with refused(UnknownSite, "only module sites", "Nearest: module:0.out, module:1.out", by=own):
        op.record(own, torch.zeros(2, 3), "blocks.0.resid_pre")
    with refused(UnsupportedArchitecture, "loaded without a tokenizer", "tokenizer=", by=own):
        own("some text")


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_attention_that_never_forms_a_pattern(implementation):
    quick = from_source(tiny("llama"))
    quick.module.config._attn_implementation = implementation
    for part in ("pattern", "scores"):
        with refused(SiteUnavailable, repr(implementation), 'attn_implementation="sdpa" or "eager"', by=quick):
            op.record(quick, [[5, 9, 2]], f"blocks.0.attn.{part}")


@pytest.mark.parametrize(
    ("prompts", "found"),
    [
        ([], "there is none"),
        ("", "prompt 0 has no token"),
        (["When Mary", ""], "prompt 1 has no token"),
        ([[5, 99999]], "token id 99999 is not in the vocabulary of"),
        (torch.tensor([[5, -1]]), "token id -1 is not in the vocabulary of"),
    ],
)
def test_prompts_that_cannot_be_run(model, prompts, found):
    with refused(BadOption, "prompts for LlamaForCausalLM", found, by=model):
        op.record(model, prompts, "embed")


def test_generation_needs_a_prompt(model):
    for prompts, found in ((("", "prompt 0 has no token")), (([], "there is none"))):
        with refused(BadOption, found, by=model):
            model.generate(prompts)


def test_recordings_say_what_they_lack(model):
    held = op.record(model, PROMPT, ["blocks.2.attn.z", "embed"])
    with refused(NotRecorded, "blocks.1.attn.z: it holds 2 sites", "Nearest: blocks.2.attn.z", "among the sites to record"):
        held["blocks.1.attn.z"]
    with refused(NotRecorded, "no layer of it is held", "Nearest: attn.z, embed"):
        held.stack("resid_pre")


def test_nothing_recorded(model):
    with refused(NotRecorded, "nothing was read there", "run the model inside", by=model), op.recording(model, "embed"):
        pass
    with refused(NotRecorded, "[pos=99]", "check the selected positions", by=model):
        op.record(model, PROMPT, "embed[pos=99]")
    with refused(NotRecorded, "rows have 1 to 4", "prompts of one length", by=model):
        op.record(model, [[5, 9, 2, 7, 11, 3], [8, 1, 4]], "embed[pos=2:]")


@pytest.mark.parametrize("size", [0, -1])
def test_a_pass_has_a_row(model, size):
    with refused(BadOption, f"batch_size={size}", by=model):
        op.record(model, PROMPT, "embed", batch_size=size)


def test_files_of_recordings(model, tmp_path):
    path = save_recording(op.record(model, PROMPT, "embed"), tmp_path / "held.safetensors")
    with refused(BadFile, "hold.safetensors", "no such file", "Nearest: held.safetensors"):
        load_recording(tmp_path / "hold.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with refused(BadFile, str(path), "not a whole safetensors file", "record it again"):
        load_recording(path)
    assert path.read_bytes() == whole[: len(whole) // 2]


def test_number_formats():
    with refused(BadOption, "dtype 'float31'", "not a floating type", "Nearest: float32, float16"):
        dtype_of("float31")
