"""WHAT A USER TYPES: one file or folder for each verb."""
