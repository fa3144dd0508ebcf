"""headtool inspect-weights from the outside: tables, shards, experts, quantised tensors, differences, resume, the hub."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from checkpoints import inspect, rows, table, write
from families import tiny
from headtool.models.locate import locate
from headtool.record import tables
from hub import COMMIT, REPOSITORY, serve
from shell import call, spawn

DEMO = locate("demo").folder
LLAMA = {"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 60}


def drawn(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(i: int, dtype=torch.float32) -> dict[str, torch.Tensor]:
    shapes = {"q_proj": (32, 24), "k_proj": (16, 24), "v_proj": (16, 24), "o_proj": (24, 32)}
    return {
        f"model.layers.{i}.self_attn.{n}.weight": drawn(*s, seed=10 * i + j, dtype=dtype)
        for j, (n, s) in enumerate(shapes.items())
    }


def model(layers=2, dtype=torch.float32) -> dict[str, torch.Tensor]:
    made = {"model.embed_tokens.weight": drawn(60, 24, seed=99, dtype=dtype)}
    for i in range(layers):
        made |= layer(i, dtype)
        made[f"model.layers.{i}.input_layernorm.weight"] = torch.ones(24, dtype=dtype)
    return made


def timeless(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.drop("created_at", "model_path", "model_id", "revision", strict=False)


def test_the_demo_has_every_table_column_and_figure(capsys, tmp_path):
    out = tmp_path / "run"
    args = (
        "inspect-weights",
        "demo",
        "--alpha",
        "--diff",
        "demo",
        "--embedding",
        "--k-max",
        "6",
        "--format",
        "jsonl",
        "--out",
        out,
    )
    said = call(capsys, *args)
    assert said.code == 0, said.err
    assert said.out.strip() == str(out)
    assert " condition alpha" in said.err
    assert "0 of 38 tensors changed" in said.err
    for name, schema in tables.TABLES.items():
        if name.startswith("inspect."):
            frame = table(out, schema.file)
            assert frame.columns == [column.name for column in schema.columns], name
            assert frame.height > 0, name
            assert (out / "tables" / f"{schema.file}.csv").is_file()
            assert len((out / "tables" / f"{schema.file}.jsonl").read_text().splitlines()) == frame.height
    figures = {f.name for f in (out / "figures").iterdir()}
    assert figures == {f"{n}.{s}" for n in ("ranks", "spectra", "heads", "elbow", "projection") for s in ("png", "svg")}
    assert set(table(out, "diff")["status"]) == {"same"}
    assert table(out, "heads_diff")["U"].to_list() == [0.0] * 32
    again = call(capsys, *args)
    assert (again.code, again.out) == (0, said.out)
    assert "done already" in again.err


def test_neither_torch_nor_transformers_is_imported(tmp_path):
    code = """
import sys
import headtool
run = headtool.inspect_weights("demo", embedding=True, diff="demo", alpha=True, k_max=4, figures=False, quiet=True)
print([name for name in ("torch", "transformers", "datasets") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_shards_are_the_single_file(capsys, tmp_path):
    for name, shards in (("one", 1), ("three", 3)):
        write(tmp_path / name, model(), LLAMA, shards)
        assert inspect(capsys, tmp_path / name, "-q", out=tmp_path / f"run-{name}").code == 0
    for name in ("parameters", "heads"):
        a, b = (timeless(table(tmp_path / f"run-{which}", name)) for which in ("one", "three"))
        assert_frame_equal(a, b)


def test_one_file_by_its_path_and_an_index_by_its_path(capsys, tmp_path):
    folder = write(tmp_path / "m", model(), LLAMA, 2)
    assert inspect(capsys, folder / "model.safetensors.index.json", "-q", out=tmp_path / "all").code == 0
    assert table(tmp_path / "all").height == len(model())
    assert inspect(capsys, folder / "model-00001-of-00002.safetensors", "-q", out=tmp_path / "one").code == 0
    assert table(tmp_path / "one").height == -(-len(model()) // 2)


def test_layers_and_block_types_are_in_the_table(capsys, tmp_path):
    write(tmp_path / "m", model(), LLAMA)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 0
    found = rows(tmp_path / "run")
    first = found["model.layers.0.self_attn.q_proj.weight"]
    assert (first["layer_index"], first["block_type"], first["shape"]) == (0, "q_proj", "32x24")
    assert (first["rows"], first["cols"], first["n_params"], first["dtype"]) == (32, 24, 768, "F32")
    norm = found["model.layers.1.input_layernorm.weight"]
    assert (norm["rank"], norm["rank_method"], norm["cols"], norm["kurtosis"]) == (None, "skipped:vector", None, None)
    assert found["model.embed_tokens.weight"]["layer_index"] is None


def test_no_heads_and_no_spectra(capsys, tmp_path):
    write(tmp_path / "m", model(), LLAMA)
    assert inspect(capsys, tmp_path / "m", "--no-heads", "-q", out=tmp_path / "a").code == 0
    assert not (tmp_path / "a" / "tables" / "heads.parquet").exists()
    assert inspect(capsys, tmp_path / "m", "--spectrum", "none", "-q", out=tmp_path / "b").code == 0
    assert not (tmp_path / "b" / "tables" / "heads.parquet").exists()
    found = table(tmp_path / "b")
    assert found["rank"].null_count() == found.height
    assert found["std"].null_count() == 0


@pytest.mark.parametrize("name", ["mixtral", "gpt_oss", "qwen3_moe"])
def test_fused_experts_are_a_row_each(capsys, tmp_path, name):
    """transformers keeps experts in one tensor of three dimensions."""
    state = {k: v for k, v in tiny(name).model.state_dict().items() if "experts" in k and v.dim() == 3}
    assert state
    write(tmp_path / "m", state)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 0
    found = rows(tmp_path / "run")
    for parameter, tensor in state.items():
        for e, matrix in enumerate(tensor.double().numpy()):
            row = found[f"{parameter}[{e}]"]
            assert (row["expert"], row["block_type"], row["rows"], row["cols"]) == (e, "moe_expert", *matrix.shape)
            assert row["spectral_norm"] == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-6)
            assert row["std"] == pytest.approx(matrix.std(), rel=1e-6)


def test_listed_experts_have_their_number(capsys, tmp_path):
    write(tmp_path / "m", {f"model.layers.0.mlp.experts.{e}.gate_proj.weight": drawn(8, 6, seed=e) for e in range(3)})
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 0
    assert table(tmp_path / "run")["expert"].to_list() == [0, 1, 2]


def test_more_than_two_dimensions_are_first_by_rest(capsys, tmp_path):
    x = drawn(5, 3, 4)
    write(tmp_path / "m", {"conv.weight": x})
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 0
    row = rows(tmp_path / "run")["conv.weight"]
    assert (row["shape"], row["rows"], row["cols"], row["block_type"]) == ("5x3x4", 5, 12, "other")
    assert row["spectral_norm"] == pytest.approx(float(torch.linalg.matrix_norm(x.reshape(5, 12), 2)), rel=1e-6)


def test_tied_and_duplicate_tensors(capsys, tmp_path):
    made = model()
    made["lm_head.weight"] = made["model.embed_tokens.weight"].clone()
    made["model.layers.1.self_attn.k_proj.weight"] = made["model.layers.0.self_attn.k_proj.weight"].clone()
    write(tmp_path / "m", made, LLAMA | {"tie_word_embeddings": True})
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 0
    found = rows(tmp_path / "run")
    assert found["lm_head.weight"]["tied_to"] == "model.embed_tokens.weight"
    assert found["model.embed_tokens.weight"]["duplicate_of"] == "lm_head.weight"
    assert found["model.layers.1.self_attn.k_proj.weight"]["duplicate_of"] == "model.layers.0.self_attn.k_proj.weight"
    assert sum(row["duplicate_of"] is not None for row in found.values()) == 2  # norms of ones are no duplicates
    write(tmp_path / "n", model(), LLAMA | {"tie_word_embeddings": True})
    assert inspect(capsys, tmp_path / "n", "-q", out=tmp_path / "other").code == 0
    assert rows(tmp_path / "other")["model.embed_tokens.weight"]["tied_to"] == "output (not stored)"


def test_a_difference_of_low_rank(capsys, tmp_path):
    """b = a + a matrix of rank 3 in one projection, one number in another, and nothing elsewhere."""
    a = model()
    b = {name: tensor.clone() for name, tensor in a.items()}
    low, one = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight"
    b[low] += drawn(32, 3, seed=7) @ drawn(3, 24, seed=8)
    b[one][2, 5] += 0.25
    del b["model.layers.0.input_layernorm.weight"]
    b["score.weight"] = drawn(3, 24)
    b = {f"x.{name}": tensor for name, tensor in b.items()}  # another head in front
    write(tmp_path / "a", a, LLAMA)
    write(tmp_path / "b", b, LLAMA)
    said = inspect(capsys, tmp_path / "a", "--diff", tmp_path / "b", out=tmp_path / "run")
    assert said.code == 0
    found = rows(tmp_path / "run", "diff")
    assert f" diff     2 of {len(found) - 4} tensors changed, 4 are in one only, the median by " in said.err
    assert f" most     {low}, by {found[low]['relative_distance']:.2g}\n" in said.err
    assert "of layer 0 head " in said.err
    statuses = {name: row["status"] for name, row in found.items()}
    assert statuses.pop("model.layers.0.input_layernorm.weight") == "only a"
    assert statuses.pop("x.score.weight") == "only b"
    assert {name for name, status in statuses.items() if status == "changed"} == {low, one}
    x, y = a[low].double().numpy(), b[f"x.{low}"].double().numpy()
    row = found[low]
    assert (row["rank"], row["rank_resolved"], row["n_changed"]) == (3, 3, 768)
    told = {
        "fro_norm": np.linalg.norm(x), "fro_norm_b": np.linalg.norm(y), "fro_distance": np.linalg.norm(y - x),
        "relative_distance": np.linalg.norm(y - x) / np.linalg.norm(x), "max_change": np.abs(y - x).max(),
        "cosine": (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y), "spectral_norm": np.linalg.norm(y - x, 2),
    }  # fmt: skip
    for name, value in told.items():
        assert row[name] == pytest.approx(value, rel=1e-6), name
    assert (found[one]["n_changed"], found[one]["max_change"], found[one]["rank"]) == (1, pytest.approx(0.25), 1)


def test_a_difference_large_enough_for_blocks(capsys, tmp_path):
    x, z = drawn(700, 130, dtype=torch.bfloat16), drawn(700, 130, seed=1)
    y = (x.float() + 0.002 * z).to(torch.bfloat16)
    write(tmp_path / "a", {"w": x})
    write(tmp_path / "b", {"w": y})
    assert inspect(capsys, tmp_path / "a", "--diff", tmp_path / "b", "-q", out=tmp_path / "run").code == 0
    row = rows(tmp_path / "run", "diff")["w"]
    assert row["n_changed"] == int((x != y).sum())
    assert row["fro_distance"] == pytest.approx(float((y.double() - x.double()).norm()), rel=1e-6)
    assert row["rank"] == 130
    assert row["rank_resolved"] < 130  # most of what differs is rounding


def quantised(kind: str) -> tuple[dict[str, torch.Tensor], dict, set[str]]:
    plain = {"model.layers.0.self_attn.k_proj.weight": drawn(16, 24)}
    codes = torch.randint(0, 100, (12, 24))
    if kind == "fp8":
        q = {"q.weight": drawn(16, 24).to(torch.float8_e4m3fn), "q.weight_scale_inv": drawn(2, 2)}
        return q | plain, {"quantization_config": {"quant_method": "fp8"}}, set(q)
    if kind == "gptq":
        q = {
            "q.qweight": codes.int(), "q.qzeros": codes[:2].int(), "q.scales": drawn(2, 24, dtype=torch.float16), "q.g_idx": torch.arange(12).int()
        }  # fmt: skip
        return q | plain, {"quantization_config": {"quant_method": "gptq"}}, set(q)
    if kind == "int8":
        q = {"q.weight": codes.to(torch.int8), "q.SCB": drawn(12)}
        return q | plain, {"quantization_config": {"quant_method": "bitsandbytes"}}, set(q)
    q = {"q.weight": codes.to(torch.uint8), "q.weight.absmax": drawn(4), "q.weight.quant_map": drawn(16)}
    return q | plain, {"quantization_config": {"quant_method": "bitsandbytes"}}, set(q)


@pytest.mark.parametrize("kind", ["fp8", "gptq", "int8", "nf4"])
def test_quantised_tensors_have_no_spectra_and_are_said_to_be_so(capsys, tmp_path, kind):
    tensors, config, names = quantised(kind)
    write(tmp_path / "m", tensors, {"model_type": "llama", "num_attention_heads": 4} | config)
    said = inspect(capsys, tmp_path / "m", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert f"{len(names)} of {len(tensors)} tensors are quantised" in said.err
    found = rows(tmp_path / "run")
    for name in names:
        row = found[name]
        assert row["rank"] is None
        assert row["rank_method"] == "skipped:quantised"
        assert row["quantisation"] == config["quantization_config"]["quant_method"]
        assert row["mean"] == pytest.approx(float(tensors[name].double().mean()), rel=1e-5, abs=1e-7)
    assert found["model.layers.0.self_attn.k_proj.weight"]["rank"] == 16


def test_nan_infinity_and_empty_tensors(capsys, tmp_path):
    odd = drawn(8, 6)
    odd[0, 0], odd[1, 1], odd[2, 2] = float("nan"), float("inf"), float("-inf")
    write(
        tmp_path / "m",
        {
            "odd": odd,
            "none": torch.empty(0, 4),
            "scalar": torch.tensor(2.5),
            "nothing": torch.full((3, 3), float("nan")),
        },
    )
    said = inspect(capsys, tmp_path / "m", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "2 tensors hold NaN or infinity, the first nothing" in said.err
    found = rows(tmp_path / "run")
    assert (found["odd"]["n_nan"], found["odd"]["n_inf"], found["odd"]["rank_method"]) == (1, 2, "skipped:not finite")
    assert found["odd"]["mean"] == pytest.approx(float(odd[odd.isfinite()].mean()), rel=1e-5)
    assert (found["none"]["n_params"], found["none"]["mean"], found["none"]["rank"]) == (0, None, None)
    assert (found["nothing"]["n_nan"], found["nothing"]["mean"]) == (9, None)
    assert (found["scalar"]["mean"], found["scalar"]["n_params"], found["scalar"]["shape"]) == (2.5, 1, "")


def test_include_and_exclude(capsys, tmp_path):
    write(tmp_path / "m", model(), LLAMA)
    args = ("--include", "*.0.self_attn.*,*norm*", "--exclude", "*v_proj*", "-q")
    assert inspect(capsys, tmp_path / "m", *args, out=tmp_path / "run").code == 0
    kept = {n.split(".", 2)[2] for n in rows(tmp_path / "run")}
    assert kept == {
        "0.self_attn.q_proj.weight",
        "0.self_attn.k_proj.weight",
        "0.self_attn.o_proj.weight",
        "0.input_layernorm.weight",
        "1.input_layernorm.weight",
    }


def test_a_folder_without_a_configuration(capsys, tmp_path):
    write(tmp_path / "m", model())
    said = inspect(capsys, tmp_path / "m", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "there is no config.json" in said.err
    assert rows(tmp_path / "run")["model.layers.0.self_attn.q_proj.weight"]["block_type"] == "q_proj"
    assert not (tmp_path / "run" / "tables" / "heads.parquet").exists()


@pytest.mark.parametrize(
    ("model_type", "says"), [("mamba", "no attention heads"), ("martian", "not known to headtool")]
)
def test_a_family_that_is_not_read(capsys, tmp_path, model_type, says):
    write(tmp_path / "m", model(), LLAMA | {"model_type": model_type})
    said = inspect(capsys, tmp_path / "m", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert says in said.err
    assert not (tmp_path / "run" / "tables" / "heads.parquet").exists()
    assert inspect(capsys, tmp_path / "m", "--family", "llama", "-q", out=tmp_path / "other").code == 0
    assert (tmp_path / "other" / "tables" / "heads.parquet").exists()


def test_an_interrupted_inspection_goes_on_from_its_parts(capsys, tmp_path, monkeypatch):
    from headtool.weights import inspection

    write(tmp_path / "m", model(4), LLAMA)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "whole").code == 0
    real, done = inspection.do, []

    def stop_after_three(found, task, wish, room):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(task.number)
        return real(found, task, wish, room)

    monkeypatch.setattr(inspection, "do", stop_after_three)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "run").code == 130
    parts = list((tmp_path / "run" / "parts").glob("*/*.part"))
    assert len(parts) == 3
    parts[0].write_bytes(parts[0].read_bytes()[:-1])  # damaged: made again
    counted = []
    monkeypatch.setattr(inspection, "do", lambda *args: counted.append(1) or real(*args))
    said = inspect(capsys, tmp_path / "m", out=tmp_path / "run")
    assert said.code == 0, said.err
    assert "going on: 2 of" in said.err
    total = int(said.err.split("going on: 2 of ")[1].split()[0])
    assert len(counted) == total - 2
    for name in ("parameters", "heads"):
        assert_frame_equal(timeless(table(tmp_path / "run", name)), timeless(table(tmp_path / "whole", name)))


def test_shares_are_the_whole(capsys, tmp_path):
    write(tmp_path / "m", model(), LLAMA)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "whole").code == 0
    for i in (2, 1, 3):
        said = inspect(capsys, tmp_path / "m", "--shard", f"{i}/3", "-q", out=tmp_path / "run")
        assert said.code == 0, said.err
    for name in ("parameters", "heads"):
        assert_frame_equal(timeless(table(tmp_path / "run", name)), timeless(table(tmp_path / "whole", name)))


def test_threads_do_not_change_a_number(capsys, tmp_path):
    write(tmp_path / "m", model(4) | {"big": drawn(900, 120)}, LLAMA)
    for threads in (1, 3):
        args = (
            "inspect-weights",
            tmp_path / "m",
            "--threads",
            threads,
            "--no-figures",
            "-q",
            "--out",
            tmp_path / str(threads),
        )
        assert call(capsys, *args).code == 0
    for name in ("parameters", "heads"):
        assert_frame_equal(timeless(table(tmp_path / "1", name)), timeless(table(tmp_path / "3", name)))


def test_a_dry_run_touches_nothing(capsys, tmp_path):
    said = inspect(capsys, "demo", "--dry-run", "--json", out=tmp_path / "run")
    assert said.code == 0, said.err
    plan = json.loads(said.out)
    assert plan["bytes"] == 937_216 == sum(4 * int(n) for n in [234_304])
    assert plan["parts_left"] == plan["parts"]
    assert not (tmp_path / "run").exists()


def test_memory_is_bounded_by_the_largest_tensor(tmp_path):
    """Anonymous memory of the process, looked at every few milliseconds, with two threads."""
    shapes = {"embed_tokens": (60_000, 512), **{f"layers.{i}.mlp.up_proj": (2048, 512) for i in range(8)}}
    write(tmp_path / "m", {f"{n}.weight": torch.randn(*s).to(torch.bfloat16) for n, s in shapes.items()})
    args = [
        sys.executable,
        "-m",
        "headtool",
        "inspect-weights",
        str(tmp_path / "m"),
        "--threads",
        "2",
        "-q",
        "--no-figures",
    ]
    process = subprocess.Popen(args, cwd=tmp_path, stdout=subprocess.PIPE)
    most, stop = [0], threading.Event()

    def watch():
        while not stop.wait(0.005):
            try:
                with open(f"/proc/{process.pid}/status", encoding="ascii") as status:
                    most[0] = max([most[0], *(int(line.split()[1]) for line in status if line.startswith("RssAnon"))])
            except OSError:
                return

    thread = threading.Thread(target=watch)
    thread.start()
    process.communicate()
    stop.set()
    thread.join()
    assert process.returncode == 0
    assert 0 < most[0] * 1024 < 3 * 60_000 * 512 * 2 + 150e6


# -- the hub ----------------------------------------------------------------------------------------------------------


def remote(hub, tmp_path, *args, **env):
    done = spawn(
        "inspect-weights",
        REPOSITORY,
        "--no-figures",
        "--threads",
        1,
        *args,
        cwd=tmp_path,
        **hub.environment(tmp_path / "home") | env,
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_model_on_the_hub_is_read_by_ranges_and_not_stored(capsys, tmp_path):
    write(tmp_path / "m", model(), LLAMA, 2)
    assert inspect(capsys, tmp_path / "m", "-q", out=tmp_path / "local").code == 0
    with serve(tmp_path / "m", breaks={"model-00001-of-00002.safetensors": [4, 3000]}) as hub:
        done = remote(hub, tmp_path, "--out", "run")
        assert done.returncode == 0, done.stderr
    found = table(tmp_path / "run")
    assert set(found["revision"]) == {COMMIT}
    assert set(found["model_id"]) == {REPOSITORY}
    for name in ("parameters", "heads"):
        assert_frame_equal(timeless(table(tmp_path / "run", name)), timeless(table(tmp_path / "local", name)))
    assert not list((tmp_path / "home").rglob("*.safetensors"))
    assert all(asked for name, asked, _ in hub.sent if name.endswith(".safetensors"))


def test_only_the_ranges_that_are_needed_are_fetched(tmp_path):
    with serve() as hub:
        done = remote(hub, tmp_path, "--include", "*.layers.1.self_attn.*", "--out", "run")
        assert done.returncode == 0, done.stderr
        needed = 4 * int(table(tmp_path / "run")["n_params"].sum())
        header = int.from_bytes((DEMO / "model.safetensors").read_bytes()[:8], "little")
        assert hub.bytes_of("model.safetensors") == needed + header + 8
    assert table(tmp_path / "run", "heads").height == 8


def test_a_server_without_ranges_is_downloaded_from(tmp_path):
    with serve(ranges=False) as hub:
        done = remote(hub, tmp_path, "--out", "run")
        assert done.returncode == 0, done.stderr
        assert list((tmp_path / "home").rglob("model.safetensors"))
        before = hub.bytes_of("model.safetensors")
        again = remote(hub, tmp_path, "--spectrum", "none", "--out", "other")
        assert again.returncode == 0, again.stderr
        assert hub.bytes_of("model.safetensors") == before  # from the cache
        offline = remote(hub, tmp_path, "--alpha", "--out", "third", HF_HUB_OFFLINE="1")
        assert offline.returncode == 0, offline.stderr
    assert table(tmp_path / "run").height == 38


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("someone/gated", "this model is gated"),
        ("someone/nothing", "the hub has no such repository"),
        (f"{REPOSITORY}@nonsense", "the hub has no such revision"),
    ],
)
def test_what_the_hub_refuses(tmp_path, given, says):
    with serve() as hub:
        done = spawn("inspect-weights", given, cwd=tmp_path, **hub.environment(tmp_path / "home"))
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 2, done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_on_the_hub_that_has_pickles_only(tmp_path):
    shutil.copytree(DEMO, tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "pytorch_model.bin")
    with serve(tmp_path / "m") as hub:
        done = remote(hub, tmp_path)
    assert done.returncode == 2
    assert "pytorch_model.bin" in done.stderr
