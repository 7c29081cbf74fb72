"""Colours of the demo shop: what they look like and which of them go together."""

from infra.demo.drawing import Colour

COLOURS: dict[str, Colour] = {
    "white": (240, 238, 233),
    "cream": (233, 220, 196),
    "sand": (208, 184, 148),
    "camel": (183, 136, 84),
    "brown": (112, 76, 52),
    "black": (44, 44, 48),
    "grey": (148, 150, 154),
    "charcoal": (78, 82, 90),
    "navy": (38, 52, 92),
    "blue": (62, 112, 180),
    "sky blue": (150, 190, 220),
    "teal": (30, 122, 124),
    "mint": (168, 214, 192),
    "green": (62, 128, 80),
    "olive": (118, 118, 66),
    "yellow": (232, 188, 64),
    "mustard": (200, 148, 44),
    "orange": (222, 122, 52),
    "coral": (232, 122, 104),
    "red": (190, 48, 52),
    "burgundy": (118, 34, 52),
    "pink": (228, 158, 172),
    "lilac": (182, 164, 208),
    "purple": (108, 72, 136),
}

# What a designer would print on each ground colour; the first is the most usual.
ACCENTS: dict[str, tuple[str, ...]] = {
    "white": ("navy", "black", "red", "teal", "sky blue"),
    "cream": ("brown", "burgundy", "navy", "olive"),
    "sand": ("white", "brown", "navy"),
    "camel": ("cream", "black", "burgundy"),
    "brown": ("cream", "mustard", "sky blue"),
    "black": ("white", "grey", "mustard", "pink"),
    "grey": ("white", "charcoal", "coral"),
    "charcoal": ("grey", "white", "mustard"),
    "navy": ("white", "red", "sky blue", "mustard"),
    "blue": ("white", "navy", "yellow"),
    "sky blue": ("white", "navy", "coral"),
    "teal": ("cream", "mustard", "navy"),
    "mint": ("white", "teal", "coral"),
    "green": ("cream", "navy", "yellow"),
    "olive": ("cream", "mustard", "black"),
    "yellow": ("white", "navy", "grey"),
    "mustard": ("cream", "navy", "brown"),
    "orange": ("cream", "navy", "white"),
    "coral": ("white", "burgundy", "mint"),
    "red": ("white", "navy", "cream"),
    "burgundy": ("cream", "pink", "mustard"),
    "pink": ("white", "burgundy", "grey"),
    "lilac": ("white", "purple", "mint"),
    "purple": ("lilac", "white", "mustard"),
}

WOODS: dict[str, Colour] = {
    "beech": (222, 184, 138),
    "oak": (198, 156, 104),
    "walnut": (112, 74, 48),
    "black ash": (56, 50, 48),
}

METALS: dict[str, Colour] = {
    "brass": (202, 162, 84),
    "steel": (176, 180, 186),
    "black steel": (52, 52, 56),
    "copper": (196, 118, 84),
    "white steel": (232, 232, 230),
}
