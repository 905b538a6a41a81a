"""Tables 3 to 6 of ByzShield (MLSys 2021) as printed, and where the print is wrong.

Source: Konstantinidis and Ramamoorthy, Section 5.3 and appendix; read in the paper, and each c_max
counted again by an exhaustive search. The print has two digits.
"""

from collections.abc import Callable
from dataclasses import dataclass

from byzshield_exp.assignments import Assignment, mols, ramanujan_two

Row = tuple[int, float, float, float, float]


@dataclass(frozen=True)
class PrintedTable:
    """A table of worst cases.

    Attributes:
        number: its number in the paper.
        about: placement and sizes.
        make: the placement.
        numbers: the table's q.
        rows: per q: c_max, then the printed epsilon_hat, baseline, FRC and gamma.
        erratum: what is wrong in the print, or nothing.
        remark: what else is to be said, or nothing.
    """

    number: int
    about: str
    make: Callable[[], Assignment]
    numbers: range
    rows: dict[int, Row]
    erratum: str = ""
    remark: str = ""

    @property
    def title(self) -> str:
        """Number and content."""
        return f"Table {self.number}: {self.about}"


TABLES = (
    PrintedTable(
        3,
        "MOLS, K=15 r=3",
        lambda: mols(15, 3),
        range(2, 8),
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
        4,
        "Ramanujan case 2, K=25 r=5",
        lambda: ramanujan_two(25, 5),
        range(3, 13),
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
        5,
        "MOLS, K=35 r=5",
        lambda: mols(35, 5),
        range(3, 14),
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
    PrintedTable(
        6,
        "MOLS, K=21 r=3",
        lambda: mols(21, 3),
        range(2, 11),
        {},
        remark="What the paper prints here has not been copied: only ours can be shown.",
    ),
)
