"""Lossless conversion and its proof."""
