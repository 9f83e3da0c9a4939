"""Questions as people put them: which are refused because nobody taught the model that name, and which never are."""

from __future__ import annotations

from string import Formatter

import pytest

from medsegr.model.checkpoint import read_targets
from medsegr.qa import phrasing
from medsegr.qa.facts import KnowledgeBase, load_knowledge
from medsegr.untrained import NameFinder


@pytest.fixture(scope="module")
def knowledge() -> KnowledgeBase:
    return load_knowledge()


@pytest.fixture(scope="module")
def finder(knowledge: KnowledgeBase) -> NameFinder:
    return NameFinder(knowledge.concepts.values(), read_targets())


UNKNOWN = (
    "outline the clavicle",
    "where is the pituitary gland?",
    "show me the sartorius and the fibula",
    "is there a pneumothorax?",
    "Segment the ligament of Treitz.",
    "Where's the fabella?",
    "And the scaphoid?",
    "Now the thyroid, please.",
    "FIBULA",
    "Are the clavicles symmetric?",
    "Could you draw around the patella for me?",
    "How big is the left humerus?",
    "Point to the median umbilical ligament.",
    "Do you see any gallstones or a pancreatic pseudocyst?",
    "Find and mark the appendix.",
    "Outline the big bright pineal gland.",
    "Where would I find the ureter?",
    "In this CT, the psoas muscle please",
    "Is the epiglottis visible?",
    "Outline the hepatic vein.",
    "Mark the tail of the pancreas.",
    "Segment the lung cancer.",
    "Show me the facial nerve.",
    "Where is the fourth ventricle?",
    "Outline the pitutary gland.",
    "Show me the clavicel.",
    "Is there a fracture?",
    "Mark the crista galli.",
    "What is the size of the prostate?",
    "Please contour the region of the sternum.",
)
KNOWN = (
    "Does this abdominal CT show the liver?",
    "How many nerves does this limb ultrasound show?",
    "Outline the livr.",
    "Where is the gall bladder?",
    "show me the kidnies",
    "Segment the esofagus.",
    "mark the hipocampus",
    "Outline the foetal head.",
    "Is the liver enlarged?",
    "Is the left kidney larger than the right?",
    "Show me the whole right lung, please.",
    "Outline the inflamed pancreas.",
    "Where is the mass?",
    "Do you see a malignant tumour in the left breast?",
    "Outline the heart shadow.",
    "How many teeth are there?",
    "Segment the contour of the spleen.",
    "Trace the outline of the spinal cord",
    "find the wound on this foot",
    "outline liver",
    "aorta?",
    "Where is the tumour of the brain?",
    "Please segment the tooth number 18.",
)
NOTHING_BY_NAME = (
    "What does this chest X-ray show?",
    "What is seen in this abdominal CT?",
    "",
    "?",
    "hello",
    "Hi, good morning!",
    "thank you",
    "Outline the organ that stores bile.",
    "Outline the organ storing bile.",
    "Show me the bright structure.",
    "the largest organ",
    "Mark the abnormal area.",
    "Outline this.",
    "Where is it?",
    "Segment everything.",
    "Find anything abnormal.",
    "only the left one",
    "why?",
    "Why do you think so?",
    "and below it?",
    "And the organ below it?",
    "which is larger?",
    "Which kidney is larger?",
    "how many are there?",
    "How many do you see?",
    "What is next to the stomach?",
    "Is it benign?",
    "Is this a CT or an MR?",
    "Is there anything else?",
    "Are you sure?",
    "Show me the answer again.",
    "Show the other side too.",
    "Draw a box around the bright spot.",
    "Outline the biggest dark round thing here.",
    "Outline the area between the clavicle and the first rib.",
    "Show me the structure near the fibula.",
    "Find the pump of the body.",
    "Show me the body's chemical factory.",
    "Outline the bile reservoir.",
    "Where is the filter for the blood?",
    "Mark the one behind the sternum.",
    "Outline the third one from the left.",
    "Is the patient ill?",
    "No, the other one.",
    "Remove the small pieces, please.",
    "Tell me more about the picture.",
    "Describe what you see.",
    "What can you see here?",
    "Is there a difference between left and right?",
    "Can you zoom in?",
    "Please outline the air-filled organs.",
    "Show me the pair of spongy organs.",
    "mark the FDI 36",
    "Is there any sign of it?",
    "the bean-shaped organ on the left",
)  # fmt: skip


@pytest.mark.parametrize("question", UNKNOWN)
def test_a_name_that_the_model_never_learnt(finder: NameFinder, question: str) -> None:
    asked = finder.asked(question)
    assert asked.untrained and not asked.trained


@pytest.mark.parametrize("question", KNOWN)
def test_a_trained_target_however_it_is_spelt(finder: NameFinder, question: str) -> None:
    asked = finder.asked(question)
    assert asked.trained and not asked.untrained


@pytest.mark.parametrize("question", NOTHING_BY_NAME)
def test_what_names_nothing_goes_to_the_model(finder: NameFinder, question: str) -> None:
    assert finder.asked(question).untrained == ()


def filled(template: str, **words: str) -> str:
    """A template of any kind with its fields filled in."""
    fields = {name for _, name, _, _ in Formatter().parse(template) if name}
    usual = {"study": "abdominal CT", "be": "is", "Be": "Is", "s": "", "one": "one", "part": "part"}
    usual |= {"what": "what", "a": "a ", "it": "it", "side": "left"}
    return template.format(**(dict.fromkeys(fields, "liver") | usual | words))


def test_no_template_about_a_trained_target_is_refused(finder: NameFinder, knowledge: KnowledgeBase) -> None:
    """Every name and synonym in every template, every fact (held-out ones too) in those that describe."""
    kinds = [value for name, value in vars(phrasing).items() if name.isupper() and isinstance(value, tuple)]
    templates = [template for kind in kinds for template in kind if isinstance(template, str)]
    naming = [t for t in templates if "{name}" in t]
    describing = [t for t in templates if "{fact}" in t]
    assert naming and describing
    for target in read_targets():
        concept = knowledge[target]
        for word in concept.give_away:
            for template in naming:
                asked = finder.asked(filled(template, name=word))
                assert asked.trained and not asked.untrained, (template, word)
            for template in phrasing.MULTI:
                question = filled(template, names=f"the {word} and the {concept.name}")
                assert not finder.asked(question).untrained, question
        for fact in concept.facts:
            for template in describing:
                assert not finder.asked(filled(template, fact=fact.text)).untrained, (template, fact.text)
    for template in templates:
        assert not finder.asked(filled(template, names="the liver", fact="stores bile")).untrained, template
