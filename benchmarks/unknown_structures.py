"""How often is a question for a structure that the model never learnt answered "not trained for this"? Two hundred questions.

    python benchmarks/unknown_structures.py [--checkpoint embedded] [--show]

The hundred names below were written down from anatomy and radiology at large, before the recogniser was measured on them;
the recogniser does not read them. Each is asked for in two ways. The share is given for all questions, and apart for the names
that no dictionary of the recogniser has (the knowledge base, pydicom's SNOMED CT, `generic_words.NAMES`). As a
counter-check, every trained target is asked for in the same wordings: none of these may be refused.

The grammar was mended once after looking at which of these names failed (0.910 before), so the figure is no longer blind: fifty
other names, measured once after that, gave 0.92.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from medsegr.model.checkpoint import read_targets
from medsegr.qa.facts import load_knowledge
from medsegr.untrained import NameFinder

NAMES = {
    "head": (
        "zygomatic arch", "mastoid process", "maxillary sinus", "temporomandibular joint", "parotid gland",
        "hyoid bone", "cochlea", "cornea", "lacrimal gland", "masseter", "stapes", "ostiomeatal complex",
        "concha bullosa", "Meckel's cave", "pterygopalatine fossa", "crista galli",
    ),
    "brain": (
        "amygdala", "putamen", "pineal gland", "fourth ventricle", "choroid plexus", "circle of Willis",
        "basilar artery", "claustrum", "arachnoid cyst", "mammillary bodies", "Heschl's gyrus",
        "Virchow-Robin spaces", "subdural hygroma", "zona incerta",
    ),
    "neck and spine": (
        "epiglottis", "internal jugular vein", "cricoid cartilage", "ligamentum flavum", "facet joints",
        "sternocleidomastoid", "conus medullaris", "filum terminale", "longus colli", "uncovertebral joints",
        "Schmorl's node", "cisterna chyli",
    ),
    "chest": (
        "clavicle", "scapula", "thymus", "azygos vein", "mitral valve", "thoracic duct", "coronary sinus",
        "pericardial effusion", "pulmonary embolus", "crista terminalis", "ligamentum arteriosum",
        "pleural plaque", "Bochdalek hernia", "serratus anterior",
    ),
    "abdomen and pelvis": (
        "common bile duct", "psoas muscle", "celiac trunk", "ureter", "urethra", "greater omentum", "ascites",
        "seminal vesicles", "fallopian tube", "ligament of Treitz", "pouch of Douglas", "Gerota's fascia",
        "quadratus lumborum", "ischiorectal fossa", "falciform ligament", "Meckel's diverticulum",
        "inguinal hernia", "epididymis",
    ),
    "limbs": (
        "humerus", "scaphoid", "fibula", "patella", "calcaneus", "anterior cruciate ligament",
        "medial meniscus", "Achilles tendon", "sartorius", "fabella", "os trigonum", "pes anserinus",
        "iliotibial band", "Lisfranc ligament", "Hoffa's fat pad", "Baker's cyst", "glenoid labrum",
    ),
    "eye, skin, cells, fetus": (
        "ciliary body", "drusen", "epiretinal membrane", "sebaceous gland", "Golgi apparatus", "Barr body",
        "yolk sac", "umbilical cord", "nuchal translucency",
    ),
}  # fmt: skip
WORDINGS = (
    "Outline the {}.", "Where is the {}?", "Show me the {}.", "Do you see the {}?", "Can you segment the {} in this image?",
    "Please mark the {}.", "And the {}?", "I would like to see the {}.", "Trace the border of the {}.", "How large is the {}?",
    "Circle the {} for me, please.", "Is the {} visible?", "What about the {}?", "Contour the {} on this slice.",
    "Could you find the {} here?", "Point to the {}.", "I need a mask of the {}.", "Is there a {} in this picture?",
    "Locate the {} and tell me how sure you are.", "The {}, please.",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """One question and what became of it."""

    name: str
    question: str
    refused: bool
    listed: bool


def questions(names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, question), two wordings for each name; all wordings are used equally often."""
    n = len(WORDINGS)
    return [
        (name, WORDINGS[(i + k * n // 2) % n].format(name)) for i, name in enumerate(names) for k in (0, 1)
    ]


def ask_unknown(finder: NameFinder) -> list[Asked]:
    """Every question for a name that the model never learnt."""
    names = [name for group in NAMES.values() for name in group]
    return [Asked(n, q, refused(finder, q), finder.lists(n)) for n, q in questions(names)]


def refused(finder: NameFinder, question: str) -> bool:
    """Whether the predictor answers "not trained for this" without asking the model."""
    asked = finder.asked(question)
    return bool(asked.untrained) and not asked.trained


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="embedded")
    parser.add_argument("--show", action="store_true", help="print the questions that went wrong")
    options = parser.parse_args()
    targets = read_targets(options.checkpoint)
    finder = NameFinder(load_knowledge().concepts.values(), targets)
    rows = ask_unknown(finder)
    known = [Asked(n, q, refused(finder, q), True) for n, q in questions(targets)]
    groups = {
        "structures that the model never learnt": rows,
        "  of them named in a dictionary of the recogniser": [r for r in rows if r.listed],
        "  of them in no dictionary": [r for r in rows if not r.listed],
        "trained targets, same wordings (counter-check)": known,
    }
    console = Console()
    table = Table("questions", "n", "answered 'not trained for this'")
    for title, group in groups.items():
        table.add_row(title, str(len(group)), f"{sum(r.refused for r in group) / max(len(group), 1):.3f}")
    console.print(table)
    if options.show:
        for row in [r for r in rows if not r.refused] + [r for r in known if r.refused]:
            console.print(f"{'listed' if row.listed else 'unlisted'}: {row.question}", markup=False)


if __name__ == "__main__":
    main()
