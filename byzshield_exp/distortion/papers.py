"""Tables 3, 4 and 5 of ByzShield (MLSys 2021) as printed, and where the print is wrong."""

from collections.abc import Callable
from dataclasses import dataclass

from byzshield_exp.assignments import Assignment, mols, ramanujan_two

Row = tuple[int, float, float, float, float]


@dataclass(frozen=True)
class PrintedTable:
    """A table of worst cases.

    Attributes:
        title: its number and what it is about.
        make: the placement.
        rows: per q: c_max, then the printed epsilon_hat, baseline, FRC and gamma.
        erratum: what is wrong in the print, or nothing.
    """

    title: str
    make: Callable[[], Assignment]
    rows: dict[int, Row]
    erratum: str = ""


TABLES = (
    PrintedTable(
        "Table 3: MOLS, K=15 r=3",
        lambda: mols(15, 3),
        {
            2: (1, 0.04, 0.13, 0.2, 2.11),
            3: (3, 0.12, 0.2, 0.2, 4.29),
            4: (5, 0.2, 0.27, 0.4, 6.96),
            5: (8, 0.32, 0.33, 0.4, 10),
            6: (12, 0.48, 0.4, 0.6, 13.33),
            7: (14, 0.56, 0.47, 0.6, 16.9),
        },
    ),
    PrintedTable(
        "Table 4: Ramanujan case 2, K=25 r=5",
        lambda: ramanujan_two(25, 5),
        {
            3: (1, 0.04, 0.12, 0.2, 2.43),
            4: (1, 0.04, 0.16, 0.2, 3.9),
            5: (2, 0.08, 0.2, 0.2, 5.56),
            6: (4, 0.16, 0.24, 0.4, 7.35),
            7: (5, 0.2, 0.28, 0.4, 9.25),
            8: (7, 0.28, 0.32, 0.4, 11.23),
            9: (9, 0.36, 0.36, 0.6, 13.28),
            10: (12, 0.48, 0.4, 0.6, 15.38),
            11: (14, 0.56, 0.44, 0.6, 17.54),
            12: (17, 0.68, 0.48, 0.8, 19.73),
        },
    ),
    PrintedTable(
        "Table 5: MOLS, K=35 r=5",
        lambda: mols(35, 5),
        {
            3: (1, 0.02, 0.12, 0.14, 2.68),
            4: (1, 0.02, 0.16, 0.14, 4.39),
            5: (2, 0.04, 0.2, 0.14, 6.36),
            6: (4, 0.08, 0.24, 0.29, 8.54),
            7: (5, 0.1, 0.28, 0.29, 10.89),
            8: (8, 0.16, 0.32, 0.29, 13.37),
            9: (10, 0.2, 0.36, 0.43, 15.97),
            10: (11, 0.22, 0.4, 0.43, 18.67),
            11: (14, 0.29, 0.44, 0.43, 21.44),
            12: (16, 0.33, 0.48, 0.57, 24.29),
            13: (20, 0.41, 0.52, 0.57, 27.2),
        },
        "the baseline column is printed as q/25 instead of q/35",
    ),
)
