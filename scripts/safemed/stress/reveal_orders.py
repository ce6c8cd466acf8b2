"""In which order the cells of an image are uncovered."""

SEEDED, LESION_LAST = "seeded", "lesion-last"
ORDERS = (SEEDED, LESION_LAST)  # by chance, or those of the lesion after all others
