"""Masks: how good they are, views of image and mask together, networks, objectives, what to ask."""
