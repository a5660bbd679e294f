"""Puts this directory on the path of its tests, so that they import `muster`."""
