"""BTARD: peers without a server, who aggregate parts for each other, check each other, and ban.

Source: Gorbunov, Borzunov, Diskin and Ryabinin, "Secure Distributed Training at Scale", ICML 2022.
"""

from byzshield_exp.training.btard.factory import btard

__all__ = ["btard"]
