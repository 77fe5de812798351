from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from modelmill.graphs.masks import padding_mask_of

HEAD = """<ir_version: 10, opset_import: ["" : 20]>
masks (int64[b, s] ids, int64[b, s] attention_mask) => (float[b, 1, n, s] added)
<int64[2] middle = {1, 2}, float one = {1.0}, float low = {-10000.0}, float weak = {-5.0}> """
KEPT = "wide = Unsqueeze (attention_mask, middle) kept = Cast <to = 1> (wide) hidden = Sub (one, kept)"
BODIES = {
    "subtracted": f"{KEPT} added = Mul (hidden, low)",
    "where": """wide = Unsqueeze (attention_mask, middle) kept = Cast <to = 9> (wide)
        zero = Sub (one, one) added = Where (kept, zero, low)""",
    "too weak to hide": f"{KEPT} added = Mul (hidden, weak)",
    "the wrong way round": f"{KEPT} added = Mul (kept, low)",
    "causal too": f"""{KEPT} padding = Mul (hidden, low)
        shape = Shape <start = 1> (ids) both = Concat <axis = 0> (shape, shape)
        all = Expand (low, both) upper = Trilu <upper = 1> (all, first) added = Add (padding, upper)""",
    "of the tokens too": f"""{KEPT} padding = Mul (hidden, low)
        tokens = Unsqueeze (ids, middle) odd = Cast <to = 1> (tokens) added = Add (padding, odd)""",
}


def added_mask(body: str) -> tuple[ir.Model, ir.Value]:
    head = HEAD.replace("= {-5.0}>", "= {-5.0}, int64 first = {1}>")
    model = ir.from_proto(onnx.parser.parse_model(head + "{" + body + "}"))
    return model, model.graph.outputs[0]


@pytest.mark.parametrize("name", ["subtracted", "where"])
def test_a_padding_mask_is_known_however_it_is_written(name: str) -> None:
    found = padding_mask_of(*added_mask(BODIES[name]))
    assert found is not None
    assert found.name == "attention_mask"


@pytest.mark.parametrize("name", ["too weak to hide", "the wrong way round", "causal too", "of the tokens too"])
def test_what_hides_anything_else_is_no_padding_mask(name: str) -> None:
    assert padding_mask_of(*added_mask(BODIES[name])) is None
