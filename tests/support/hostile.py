"""Records whose names and texts look like something else: missing values, numbers, markup, formulas."""

import pandas as pd

MARKUP = "<script>alert(1)</script> <img src=x onerror=alert(2)> & [link](x) `code` | {{ x }} $\\frac{$ *\x1b[2J\r\nNA"
IDS = ["NA", "007", "1e5", "nan", "null", "True", "", MARKUP]  # "": replaced by whoever wants a text there
TYPE, MODALITIES = "None", ("null", "$x_{$ <b>|&")


def renamed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of support.report_rows under other names: of questions, parts, and what the model said."""
    names = dict(zip(("CT", "fundus photography", "Disease Diagnosis"), (*MODALITIES, TYPE), strict=True))
    made = rows.copy()
    for column in {"modality", "question_type", "part"} & set(made):
        if "polarity" not in made:  # a stress test's question types are stages of the chain
            made[column] = made[column].replace(names)
    if "question_id" in made:
        made["question_id"] = made["question_id"].replace({f"q{i}": name or "-" for i, name in enumerate(IDS)})
    if "text" in made:
        made["text"] = MARKUP
    return made
