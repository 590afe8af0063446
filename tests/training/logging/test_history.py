"""A history that is taken up again is, byte for byte, the one that was never left."""

from policysmith.training.logging.history import History

COLUMNS = ("step", "return", "length")
ROWS = [(14, 4.0, 7), (28, float("nan"), 7), (42, -0.0, 7), (56, 1e300, 7), (70, 0.1, 7)]


def test_what_is_written_again_is_what_was_read_and_later_rows_are_cut(tmp_path):
    History(tmp_path, "whole.csv", COLUMNS).add(ROWS)
    History(tmp_path, "cut.csv", COLUMNS).add([*ROWS[:3], (43, 9.0, 1)])
    with (tmp_path / "cut.csv").open("a") as stream:
        stream.write("44,2.")  # half a row, of a run that was killed
    resumed = History(tmp_path, "cut.csv", COLUMNS)
    resumed.take_up(tmp_path, 3)
    resumed.add(ROWS[3:])
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
