"""WHAT A RUN DOES: parts, loop, protocol, learner."""
