"""Pictures of a policy: every box and arrow is there, in its place, whatever the names are."""

import random
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from itertools import combinations, pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policysmith.errors import WiringError
from policysmith.transform.diagram import html, mermaid, svg
from policysmith.transform.layout import layered

ROOT = str(Path(__file__).parents[2])
SVG = "{http://www.w3.org/2000/svg}"
AWKWARD = [
    "end",
    "_value_",
    "observation.image",
    "graph",
    'say "hi"',
    "<b>&amp;</b>",
    "`x`",
    "a|b[c]{d}",
    "#1",
    "über 🐍",
    "n0",
]


def _node(name, kind, inputs, shape=(64,), parameters=4160, **rest):
    node = {
        "name": name,
        "type": kind,
        "inputs": inputs,
        "outputs": [name],
        "shape": list(shape),
        "dtype": "float32",
        "parameters": parameters,
        "trainable": parameters,
        "buffers": 0,
        "flops": 2 * parameters,
        "role": None,
        "state_bytes": 0,
        "shares": None,
    }
    return node | rest


def _description(inputs, nodes, outputs):
    count = sum(node["parameters"] for node in nodes)
    totals = {"parameters": count, "trainable": count, "buffers": 0, "flops": 2 * count, "parameter_bytes": 4 * count}
    totals |= {"buffer_bytes": 0, "activation_bytes": 1040, "state_bytes": 0}
    given_inputs = [{"name": name, "shape": shape, "dtype": "float32"} for name, shape in inputs.items()]
    return {"model": "graph", "inputs": given_inputs, "nodes": nodes, "outputs": outputs, "totals": totals}


def _separate():
    nodes = [
        _node("actor", "mlp", ["observation"], parameters=4480),
        _node("critic", "mlp", ["observation"], parameters=4480),
        _node("policy", "action_head", ["actor"], [2], 130, role="policy"),
        _node("state_value", "value_head", ["critic"], [], 65, role="value"),
    ]
    return _description({"observation": [4]}, nodes, ["policy", "state_value"])


def _image_and_vector():
    nodes = [
        _node("vision", "nature_cnn", ["observation.image"], [512], 1_684_128),
        _node("joined", "concat", ["vision", "observation.vector"], [524], 0),
        _node("trunk", "mlp", ["joined"], [256]),
        _node("policy", "action_head", ["trunk", "action_mask"], [18], role="policy"),
        _node("state_value", "value_head", ["trunk"], [], role="value"),
    ]
    inputs = {"observation.image": [3, 84, 84], "observation.vector": [12], "action_mask": [18]}
    return _description(inputs, nodes, ["policy", "state_value"])


def _transformer(blocks=3):
    nodes, x = [_node("embed", "linear", ["tokens"])], "embed"
    for i in range(blocks):
        nodes += [
            _node(f"attention{i}", "mla", [x], state_bytes=4096),
            _node(f"middle{i}", "add", [x, f"attention{i}"], parameters=0),
            _node(f"feedforward{i}", "gated_mlp", [f"middle{i}"]),
            _node(f"out{i}", "add", [f"middle{i}", f"feedforward{i}"], parameters=0),
        ]
        x = f"out{i}"
    nodes += [
        _node("policy", "action_head", [x], role="policy"),
        _node("critic", "mlp", ["privileged", x, "embed"]),
        _node("_value_", "value_head", ["critic"], [], role="value"),
    ]
    return _description({"tokens": [64, 32], "privileged": [110]}, nodes, ["policy", "_value_"])


def _chain(length=40):
    names = ["observation", *(f"layer{i}" for i in range(length))]
    nodes = [_node(name, "linear", [before]) for before, name in pairwise(names)]
    return _description({"observation": [4]}, nodes, [names[-1]])


def _random(count, seed=0):
    source = random.Random(seed)
    names = ["observation"]
    nodes = []
    for i in range(count):
        recent = names[-40:]
        inputs = {source.choice(recent) for _ in range(source.choice([1, 1, 2, 3]))}
        inputs |= {source.choice(names)} if source.random() < 0.02 else set()
        nodes.append(_node(f"c{i}", "mlp", sorted(inputs)))
        names.append(f"c{i}")
    return _description({"observation": [4]}, nodes, [names[-1]])


def _awkward():
    nodes = [_node(name, name, [before]) for before, name in pairwise(AWKWARD)]
    return _description({AWKWARD[0]: [4]}, nodes, [AWKWARD[-1]])


GRAPHS = {
    "separate": _separate,
    "image and vector": _image_and_vector,
    "transformer": _transformer,
    "chain": _chain,
    "random": lambda: _random(60),
    "awkward": _awkward,
}


@pytest.fixture(params=GRAPHS, name="description")
def _any_description(request):
    return GRAPHS[request.param]()


def _num_wires(description):
    return sum(len(node["inputs"]) for node in description["nodes"])


@st.composite
def _graphs(draw):
    count = draw(st.integers(1, 24))
    sizes = draw(st.lists(st.tuples(st.integers(40, 260), st.integers(30, 80)), min_size=count, max_size=count))
    pairs = st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)).filter(lambda pair: pair[0] < pair[1])
    edges = draw(st.lists(pairs, max_size=3 * count)) if count > 1 else []
    names = draw(st.permutations(range(count)))
    return sizes, [(names[a], names[b]) for a, b in edges]


@settings(max_examples=150, deadline=None)
@given(_graphs())
def test_boxes_keep_apart_and_edges_point_down_between_them(graph):
    sizes, edges = graph
    layout = layered(sizes, edges)
    for box, (width, height) in zip(layout.boxes, sizes, strict=True):
        assert (box.width, box.height) == (width, height)
        assert box.x >= -1e-6 and box.x + width <= layout.width + 1e-6
        assert box.y >= -1e-6 and box.y + height <= layout.height + 1e-6
    for a, b in combinations(layout.boxes, 2):
        beside = a.x + a.width + 10 <= b.x or b.x + b.width + 10 <= a.x
        assert beside or a.y + a.height + 10 <= b.y or b.y + b.height + 10 <= a.y
    for (source, target), route in zip(edges, layout.routes, strict=True):
        _check_route(layout, layout.boxes[source], layout.boxes[target], route)


def _check_route(layout, source, target, route):
    assert source.layer < target.layer
    assert source.x <= route[0][0] <= source.x + source.width and route[0][1] == source.y + source.height
    assert target.x < route[-1][0] < target.x + target.width and route[-1][1] == target.y
    assert [y for _, y in route] == sorted(y for _, y in route)
    assert len(route) == 2 * (target.layer - source.layer)
    for (x, top), (to_x, bottom) in zip(route[1::2], route[2::2], strict=False):
        assert x == to_x, "beside the boxes of a layer an edge runs straight down"
        for box in layout.boxes:
            inside = box.x < x < box.x + box.width and box.y < bottom and top < box.y + box.height
            assert not inside, "an edge runs through a box"


def test_a_chain_is_one_straight_line():
    layout = layered([(100 + 7 * i, 60) for i in range(40)], [(i, i + 1) for i in range(39)])
    assert {x for route in layout.routes for x, _ in route} == {layout.routes[0][0][0]}


def test_skips_leave_the_main_line_straight():
    # 0 → 1 → 2 → 3 → 4 with skips 0 → 2 and 2 → 4
    layout = layered([(100, 60)] * 5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 2), (2, 4)])
    assert len({box.x for box in layout.boxes}) == 1


def test_siblings_stand_centred_under_their_source():
    left, right = layered([(100, 60)] * 3, [(0, 1), (0, 2)]).boxes[1:]
    top = layered([(100, 60)] * 3, [(0, 1), (0, 2)]).boxes[0]
    assert (left.x + right.x) / 2 == pytest.approx(top.x, abs=0.2)


def test_crossings_that_can_be_avoided_are():
    layout = layered([(100, 60)] * 4, [(0, 3), (1, 2)])
    first, second, third, fourth = layout.boxes
    assert (first.x < second.x) == (fourth.x < third.x)


def test_edges_of_one_source_share_their_way():
    layout = layered([(100, 60)] * 5, [(0, 1), (1, 2), (2, 3), (3, 4), (0, 3), (0, 4)])
    assert layout.routes[4][:-1] == layout.routes[5][: len(layout.routes[4]) - 1]


def test_a_cycle_is_refused():
    with pytest.raises(WiringError, match="cycle"):
        layered([(10, 10)] * 2, [(0, 1), (1, 0)])


def test_an_empty_graph_has_no_extent():
    assert layered([], []).width == 0


def test_svg_draws_every_box_and_every_arrow(description):
    root = ElementTree.fromstring(svg(description))
    groups = [g for g in root.iter(f"{SVG}g") if "ps-box" in g.get("class", "")]
    tips = [p for p in root.iter(f"{SVG}path") if p.get("class") == "ps-tip"]
    assert len(groups) == len(description["inputs"]) + len(description["nodes"])
    assert len(tips) == _num_wires(description)
    titles = [g.findtext(f"{SVG}title") for g in groups]
    names = [entry["name"] for entry in description["inputs"] + description["nodes"]]
    assert all(title.startswith(f"{name}: ") for title, name in zip(titles, names, strict=True))


def test_svg_boxes_lie_inside_the_picture_and_hold_their_text(description):
    root = ElementTree.fromstring(svg(description))
    width, height = float(root.get("width")), float(root.get("height"))
    assert root.get("viewBox") == f"0 0 {root.get('width')} {root.get('height')}"
    for group in root.iter(f"{SVG}g"):
        if "ps-box" in group.get("class", ""):
            x, y = map(float, re.findall(r"-?[\d.]+", group.get("transform")))
            rect = group.find(f"{SVG}rect")
            assert x >= 0 and x + float(rect.get("width")) < width
            assert y >= 0 and y + float(rect.get("height")) < height
            longest = max(len(text.text) for text in group.iter(f"{SVG}text"))
            assert float(rect.get("width")) > 5.5 * longest


def test_svg_marks_the_roles():
    text = svg(_separate())
    assert text.count('class="ps-box ps-input"') == 1
    assert text.count('class="ps-box ps-policy"') == 1
    assert text.count('class="ps-box ps-value"') == 1
    assert text.count('class="ps-box ps-hidden"') == 2


def test_svg_marks_shared_weights():
    description = _separate()
    description["nodes"][1] |= {"shares": "actor"}
    text = svg(description)
    assert text.count("stroke-dasharray") == 1
    assert "mlp, weights of actor" in text


def test_svg_shortens_long_names_but_keeps_them_in_the_tooltip():
    description = _chain(1)
    description["nodes"][0]["name"] = "x" * 200
    root = ElementTree.fromstring(svg(description))
    assert max(len(text.text) for text in root.iter(f"{SVG}text")) < 40
    assert "x" * 200 in svg(description)


def test_svg_replaces_characters_that_xml_forbids():
    description = _chain(1)
    description["model"] = "a\x00b\x1b"
    ElementTree.fromstring(svg(description))


def test_a_rewritten_name_leads_to_its_latest_writer():
    rewritten = _node("norm", "norm", ["observation"], outputs=["observation"])
    description = _description({"observation": [4]}, [rewritten, _node("trunk", "mlp", ["observation"])], ["trunk"])
    assert "n0 -->" in mermaid(description)
    assert re.findall(r"(n\d) -->.* (n\d)", mermaid(description)) == [("n0", "n1"), ("n1", "n2")]


def test_parts_of_an_input_lead_to_the_whole():
    description = _description({"observation": [4]}, [_node("trunk", "mlp", ["observation.image"])], ["trunk"])
    assert re.findall(r"(n\d) -->.* (n\d)", mermaid(description)) == [("n0", "n1")]


def test_several_outputs_have_their_own_shapes():
    split = _node("split", "split", ["observation"], outputs=["a", "b"]) | {"shape": [[3], [2, 2]]}
    description = _description({"observation": [4]}, [split, _node("pair", "add", ["b", "a"])], ["pair"])
    assert 'n1 -->|"2 × 2"| n2\n    n1 -->|"3"| n2' in mermaid(description)


def test_an_input_that_nothing_provides_is_named():
    description = _description({"observation": [4]}, [_node("trunk", "mlp", ["observatoin"])], ["trunk"])
    with pytest.raises(WiringError, match=r"'trunk' reads 'observatoin', which no input and no node provides"):
        svg(description)


def test_mermaid_draws_every_box_and_every_labelled_arrow(description):
    lines = mermaid(description).splitlines()
    assert lines[0] == "flowchart TD"
    assert sum(":::" in line for line in lines) == len(description["inputs"]) + len(description["nodes"])
    assert sum(bool(re.fullmatch(r'    n\d+ -->\|"[^"|]+"\| n\d+', line)) for line in lines) == _num_wires(description)


def test_mermaid_ids_and_labels_are_safe_for_any_name():
    for line in mermaid(_awkward()).splitlines()[1:]:
        box = re.fullmatch(r'    n\d+(?:\(\["|\(")(.*)(?:"\]\)|"\)):::\w+', line)
        if box:
            assert not set(box[1].replace("<br/>", "")) & set('"<>&`|[]{}')
            assert re.sub(r"#\d+;", "", box[1]).count("#") == 0
        else:
            assert "-->" in line or line.startswith("    classDef ")


def test_mermaid_says_type_shape_and_parameters():
    assert '    n1("actor<br/>mlp · 64 · 4,480 params"):::hidden' in mermaid(_separate()).splitlines()


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_html_needs_nothing_but_itself(description):
    text = html(description)
    page = _Page()
    page.feed(text)
    assert page.links == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "url(" not in text and "@import" not in text
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}


def test_html_holds_the_drawing_and_the_table(description):
    text = html(description)
    assert svg(description) in text
    assert text.count("<tr") == len(description["inputs"]) + len(description["nodes"]) + 2


def test_html_escapes_the_model_and_the_names():
    description = _awkward()
    description["model"] = "<script>alert(1)</script>"
    text = html(description)
    assert "<script" not in text and "<b>" not in text


@pytest.mark.parametrize("draw", [svg, html, mermaid])
def test_equal_descriptions_give_equal_text(draw, description):
    assert draw(description) == draw(description)


def test_the_drawing_does_not_depend_on_the_hash_seed():
    script = (
        "import hashlib, random; from policysmith.transform.layout import layered; r = random.Random(0);"
        "edges = [tuple(sorted(r.sample(range(60), 2))) for _ in range(120)];"
        "print(hashlib.sha256(repr(layered([(80, 40)] * 60, edges)).encode()).hexdigest())"
    )
    runs = [[sys.executable, "-c", script]] * 2
    seen = {
        subprocess.run(run, env={"PYTHONHASHSEED": seed, "PYTHONPATH": ROOT}, capture_output=True, check=True).stdout
        for run, seed in zip(runs, ("1", "2"), strict=True)
    }
    assert len(seen) == 1


@pytest.mark.parametrize("make", [lambda: _random(1000), lambda: _chain(1000), lambda: _transformer(240)])
def test_a_thousand_nodes_take_less_than_two_seconds(make):
    description = make()
    start = time.process_time()
    svg(description)
    assert time.process_time() - start < 2.0
