"""WHAT A PERSON TYPES: one file or folder for each verb."""
