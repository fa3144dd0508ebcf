"""headtool inject: sites, bits, detectors and numbers that cannot be."""

from bad_input.case import case, file

CASES = (
    case("inject demo --sites q,z", "there is no site named 'z'"),
    case("inject demo --sites ,", "--sites is empty"),
    case("inject demo --bits 32", "--bits 32: a float32 has bits 0 to 31"),
    case("inject demo --bits 16 --dtype bf16", "--bits 16: a bfloat16 has bits 0 to 15"),
    case("inject demo --bits x", "--bits x: 'x' is neither a number nor a range"),
    case("inject demo --bits 9-3", "--bits 9-3: '9-3' is neither a number nor a range"),
    case("inject demo --bits 0-999999999", "--bits 0-999999999: '0-999999999' is neither a number nor a range"),
    case("inject demo --layers 9", "--layers 9: the model has 4"),
    case("inject demo --heads 8", "--heads 8: the model has 8"),
    case("inject demo --seeds -1", "--seeds -1: '-1' is neither a number nor a range"),
    case("inject demo --pattern flap", "--pattern flap: there is no such pattern"),
    case("inject demo --detect rang", "there is no detector named 'rang'"),
    case("inject demo --epsilon q@o", "--epsilon q@o needs K = V, and they differ"),
    case("inject demo --harm 0", "--harm 0.0: not above 0 and below inf"),
    case("inject demo --margin 0.7", "--margin 0.7: not above 0 and below 0.5"),
    case("inject demo --lr -1", "--lr -1.0: not a number above 0"),
    case("inject demo --phase backward --steps 0", "--steps 0: the loss before the first step is there anyway"),
    case("inject demo --tolerance -1", "--tolerance -1.0: not a number from 0"),
    case("inject demo --calibration nowhere.json", "--calibration nowhere.json: there is no such file"),
    case("inject demo --calibration a.json --out run", "--calibration a.json: it holds no calibration", "a.json holds a list", file("a.json", [])),
    case("inject demo --phase backward --detect strict", "detectors watch the forward phase"),
    case("inject demo --sample --shard 1/2", "--sample decides after each round, so all shares must run at the same time"),
    case("inject demo --calibrate 400", "demo: 256 sequences, 400 of them to calibrate"),
    case("inject demo --data nowhere.txt", "nowhere.txt: there is no such file"),
    case("inject demo --data a.txt", "a.txt: 1 sequences, 32 of them to calibrate", "a text of one word", file("a.txt", "word")),
    case("inject ./nothing", "./nothing: there is no such model folder"),
)  # fmt: skip
