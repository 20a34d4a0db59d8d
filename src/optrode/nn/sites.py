"""Where the named sites of our own transformer are."""

from optrode.model.adapter import PATTERN, Place, Table, heads
from optrode.nn.spec import Spec

BLOCK = "blocks.{L}"
_NO_GATE = "its MLP has no gate"
_NO_POST_NORM = "nothing is normalised after attention or the MLP"


def table_of(spec: Spec) -> Table:
    """The site table of `Transformer(spec)`."""
    places = _stem(spec) | _attention(spec) | _mlp(spec)
    return Table(
        family="optrode",
        n_layers=spec.n_layers,
        d_model=spec.d_model,
        n_heads=spec.n_heads,
        n_kv_heads=spec.n_kv,
        d_head=spec.head_width,
        is_causal=spec.is_causal,
        is_parallel=spec.is_parallel,
        places=places,
        absent={kind: why for kind, why in _reasons(spec).items() if kind not in places},
    )


def _stem(spec: Spec) -> dict[str, Place]:
    position = {"pos_embed": Place("pos_embed")} if spec.positions in ("learned", "one_hot") else {}
    norm = {"final_norm": Place("final_norm")} if spec.norm != "none" else {}
    ends = {"resid_pre": Place(BLOCK, "in"), "resid_post": Place(BLOCK), "logits": Place("", how="logits")}
    return {"embed": Place("embed")} | position | norm | ends


def _attention(spec: Spec) -> dict[str, Place]:
    attn, n_heads, n_kv = f"{BLOCK}.attn", spec.n_heads, spec.n_kv
    norm = {"ln1": Place(f"{BLOCK}.ln1")} if spec.norm != "none" else {}
    return norm | {
        "attn_in": Place(_reader(spec, "attn"), "in"),
        "attn.q": Place(f"{attn}.q", view=heads(n_heads)),
        "attn.k": Place(f"{attn}.k", view=heads(n_kv)),
        "attn.v": Place(f"{attn}.v", view=heads(n_kv)),
        "attn.scores": Place(f"{attn}.scores", view=PATTERN),
        "attn.pattern": Place(f"{attn}.pattern", view=PATTERN),
        "attn.z": Place(f"{attn}.o", "in", heads(n_heads)),
        "attn.result": Place(f"{attn}.o", "in", heads(n_heads), how="result"),
        "attn_out": Place(attn),
    }


def _mlp(spec: Spec) -> dict[str, Place]:
    if not spec.d_mlp:
        return {}
    norm = {"ln2": Place(f"{BLOCK}.ln2")} if spec.norm != "none" else {}
    mid = Place(_reader(spec, "attn"), "in", how="mid", added=f"{BLOCK}.attn")
    return norm | ({} if spec.is_parallel else {"resid_mid": mid}) | {
        "mlp_in": Place(_reader(spec, "mlp"), "in"),
        "mlp.pre": Place(f"{BLOCK}.mlp.up"),
        "mlp.post": Place(f"{BLOCK}.mlp.down", "in"),
        "mlp_out": Place(f"{BLOCK}.mlp"),
    }


def _reader(spec: Spec, half: str) -> str:
    """The first module of a half of the block to read the residual stream: its norm, where there is one."""
    return f"{BLOCK}.{half}" if spec.norm == "none" else f"{BLOCK}.{'ln1' if half == 'attn' else 'ln2'}"


def _reasons(spec: Spec) -> dict[str, str]:
    """Why a standard site can be missing."""
    no_norm = "the residual stream is read without a norm"
    no_mlp = "blocks have attention alone, no MLP"
    reasons = {
        "pos_embed": "positions are not embedded" if spec.positions == "none" else "positions turn q and k instead",
        "ln1": no_norm, "final_norm": no_norm, "ln2": no_norm if spec.d_mlp else no_mlp,
        "resid_mid": "attention and MLP both read the block's input" if spec.d_mlp else no_mlp,
        "mlp.pre_linear": _NO_GATE, "mlp.router": "its MLP has no experts",
        "ln1_post": _NO_POST_NORM, "ln2_post": _NO_POST_NORM,
    }  # fmt: skip
    return reasons | dict.fromkeys(("mlp_in", "mlp.pre", "mlp.post", "mlp_out"), no_mlp)
