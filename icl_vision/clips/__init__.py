"""Anything a user calls a clip becomes frames [T, H, W, 3]: opened with suspicion, sampled, and written again.

Knows: which names are public. Refuses to know: how any of it works.
"""

from icl_vision.clips.folders import CLIP_SUFFIXES, list_clips
from icl_vision.clips.opening import ClipSource, is_clip_source, iter_clips, key_frames, load_clip, moves, seconds_of
from icl_vision.clips.reels import ClipLimits
from icl_vision.clips.saving import SAVED_SUFFIXES, save_clip

__all__ = [
    "CLIP_SUFFIXES",
    "SAVED_SUFFIXES",
    "ClipLimits",
    "ClipSource",
    "is_clip_source",
    "iter_clips",
    "key_frames",
    "list_clips",
    "load_clip",
    "moves",
    "save_clip",
    "seconds_of",
]
