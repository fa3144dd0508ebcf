"""headtool doctor: there is little to get wrong."""

from bad_input.case import case

CASES = (
    case("doctor demo", "got unexpected extra argument..."),
    case("doctor --timeout 0", "invalid value for '--timeout': ..."),
    case("doctor --timeout soon", "invalid value for '--timeout': ..."),
    case("doctor --config no.yaml", "--config no.yaml: there is no such file"),
)
