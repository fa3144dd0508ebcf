"""The command line itself, and what every command takes."""

from bad_input.case import case, file

CASES = (
    case("scor", "no such command 'scor'", hint="did you mean 'score'"),
    case("--colour", "no such option: --colour"),
    case("score", "missing argument 'MODEL'"),
    case("score demo extra", "got unexpected extra argument..."),
    case("score demo --scors out", "no such option: --scors", hint="did you mean --scores?"),
    case("score demo --scores", "option '--scores' requires an argument"),
    case("score demo --format pdf", "no such option: --format"),
    case("score demo --config no.yaml", "--config no.yaml: there is no such file"),
    case("score demo --config a.toml", "--config a.toml: neither TOML nor YAML that can be read", "a.toml holds `= 3`", file("a.toml", "= 3")),
    case("score demo --config b.yaml", "--config b.yaml: neither TOML nor YAML that can be read", "b.yaml holds `a: [1`", file("b.yaml", "a: [1")),
    case("score demo --config c.yaml", "--config c.yaml: holds no names and values", "c.yaml holds `- a`", file("c.yaml", "- a")),
    case("score demo --config d.yaml", "invalid value for '--limit': ...", "d.yaml holds `limit: few`", file("d.yaml", "limit: few")),
    case("score demo --config e.yaml", "--config e.yaml: there is no setting named 'limits'", "e.yaml holds `limits: 3`", file("e.yaml", "limits: 3"), hint="did you mean 'limit'?"),
    case("score demo --config f.yaml", "--config f.yaml: neither TOML nor YAML that can be read", "f.yaml holds `!!python/object/apply:os.system [touch ran]`", file("f.yaml", "!!python/object/apply:os.system [touch ran]")),
    case("score demo --config h.yaml", "--config h.yaml: there is no setting named 'config'", "h.yaml holds `config: e.yaml`", file("h.yaml", "config: e.yaml")),
    case("score demo --config i.yaml", "--config i.yaml: neither TOML nor YAML that can be read", "i.yaml holds `limit` twice", file("i.yaml", "limit: 4", "limit: 5"), hint="limit is given twice"),
    case("score demo --config j.yaml", "--config j.yaml: limit: true is no value", "j.yaml holds `limit: true`", file("j.yaml", "limit: true")),
    case("score demo --config k.yaml", "--out is empty", "k.yaml holds `out: ''`", file("k.yaml", "out: ''")),
    case("score demo --config l.toml", "--config l.toml: there is no setting named 'score'", "l.toml holds a section `[score]`", file("l.toml", "[score]", "limit = 4"), hint="did you mean 'scores'?"),
    case("score demo --config o.yaml", "--out is no path", "out: {}", file("o.yaml", "out: {}\n")),
    case("score demo --config g.yaml", "--config g.yaml: cannot be read (it is no UTF-8 text)", "g.yaml is not UTF-8", file("g.yaml", raw=b"a: \xff\xfe")),
    case("score demo", "invalid value for '--limit': ...", "HEADTOOL_LIMIT=few in the environment", env={"HEADTOOL_LIMIT": "few"}),
    case("score demo", "RANK or WORLD_SIZE is no number", "WORLD_SIZE=two in the environment", env={"WORLD_SIZE": "two"}),
    case("score demo", "RANK 5 is none of WORLD_SIZE 2", "RANK=5 and WORLD_SIZE=2 in the environment", env={"RANK": "5", "WORLD_SIZE": "2"}),
    case("score demo", "RANK -1 is none of WORLD_SIZE 2", "RANK=-1 and WORLD_SIZE=2 in the environment", env={"RANK": "-1", "WORLD_SIZE": "2"}),
    case("score demo", "RANK 1 is none of WORLD_SIZE 1", "RANK=1 alone in the environment", env={"RANK": "1"}),
    case("score demo --shard ١/٢", "--shard ١/٢: not of the form i/n with 1 <= i <= n"),
    case("score demo --shard 1/2", "--shard and torchrun are two ways of sharing one run", "started by torchrun, as one of two", env={"WORLD_SIZE": "2", "RANK": "0"}),
)  # fmt: skip
