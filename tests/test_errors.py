from byzshield_exp.errors import first_line


def test_the_first_line_of_an_error_says_something():
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("\n\n  \nthree")) == "three"
    for silent in (EOFError(), EOFError(""), EOFError("\n")):
        assert first_line(silent) == "EOFError"
