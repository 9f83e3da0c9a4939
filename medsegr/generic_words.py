"""Words that name no structure: a noun phrase made of them describes, points or speaks of the picture itself.

Kept apart from `medsegr.untrained`, which reads them; all are in the spelling of `anatomy_names.word_key`.
"""

from __future__ import annotations

from medsegr.anatomy_names import word_key


def _keys(text: str) -> frozenset[str]:
    return frozenset(word_key(word) for word in text.split())


NOUNS = _keys(
    "fdi structure organ part parts piece portion thing things object item area areas region regions zone site spot patch "
    "place location position abnormality abnormalities anomaly anomalies pathology pathologies lesion lesions finding "
    "findings problem disease disorder change changes alteration defect something anything everything nothing anybody "
    "somebody one ones it this that these those them they he she him her his its their who what which where when why "
    "how all each every both any some none many much few lot more less most least other others another else rest "
    "remainder same two three four five six seven eight nine ten zero pair couple group set number count amount kind "
    "type sort class category anatomy body patient person man woman child people side sides half quadrant corner "
    "centre center middle edge edges border boundary margin outline contour shape form silhouette shadow opacity line "
    "lines band stripe blob dot point points circle ring ellipse box square rectangle arrow colour color tone grey "
    "gray shade brightness contrast intensity density signal noise artefact artifact background foreground layer "
    "level depth height width length size volume diameter distance dimension measurement measure scale unit percent "
    "share proportion ratio value score image picture photo photograph photography scan slice slices frame view "
    "series study ct mr mri xr xray x ray radiograph film us ultrasound sonogram echo echocardiogram mammogram "
    "mammography fundus dermoscopy micrograph microscopy smear tomogram tomography angiogram dicom file screen window "
    "mask masks segmentation segmentations annotation overlay label labels legend name names answer answers question "
    "questions reply result results reason reasons explanation evidence proof confidence probability certainty chance "
    "difference comparison summary list table report diagnosis conclusion impression opinion guess mistake error "
    "target targets parenchyma tissue substance material content contents inside outside interior exterior surface "
    "wall cavity lumen chamber field fields pole end beginning start top bottom apex base front back detail details "
    "example way time day year minute second yes no not ok okay hello hi hey thanks thank greetings morning evening "
    "afternoon goodbye bye please sorry help hint tip fun case condition state appearance look aspect feature "
    "features sign signs symptom complaint history age sex gender orientation model system program software computer "
    "you i we me"
)
"""Nouns and pronouns that stand for whatever is meant."""

POINTERS = _keys(
    "structure organ part portion piece thing object item area region zone spot patch place abnormality anomaly "
    "finding one shape blob tissue"
)
"""Nouns that end a description whatever stands before them: the spongy organs; an iliotibial band is a name."""

MODIFIERS = _keys(
    "separate big bigger biggest large larger largest small smaller smallest tiny huge long longer longest short shorter "
    "shortest tall wide wider widest narrow narrower thick thicker thin thinner round rounded oval flat irregular "
    "smooth rough sharp blurry spiculated bright brighter brightest dark darker darkest light lighter pale white "
    "black red green blue yellow brown pink purple coloured colored dense denser hyperdense hypodense hyperintense "
    "hypointense hyperechoic hypoechoic anechoic echogenic radiolucent radiopaque lucent opaque shiny solid hollow "
    "cystic soft hard hot cold left right upper lower middle central lateral medial superior inferior anterior "
    "posterior proximal distal superficial deep deeper internal external inner outer bilateral unilateral "
    "contralateral ipsilateral opposite horizontal vertical first second third last next previous former latter final "
    "only just also too again now then here there main major minor single double multiple several various different "
    "similar common rare normal abnormal unusual strange odd weird suspicious suspected unclear clear obvious visible "
    "invisible seen shown present absent missing remaining new old recent healthy ill sick diseased affected "
    "pathological malignant benign cancerous enlarged dilated swollen inflamed shrunken atrophic thickened displaced "
    "focal diffuse local chronic acute severe mild moderate whole entire full complete partial total true false real "
    "correct wrong exact actual possible likely probable potential important relevant interesting good better best "
    "bad worse worst nice great high higher highest low lowest strong weak known unknown certain sure own very so "
    "quite really actually maybe perhaps still even away apart together alone separately patient's human adult fetal "
    "foetal male female empty filled connected adjacent nearby near far surrounding up down inward outward continuous "
    "intermittent elevated decreased ended estimated equal frequent mixed routine significant suspended systemic "
    "neighbouring neighboring overlying underlying above below beneath exactly approximately roughly precisely "
    "carefully quickly little such"
)
"""Adjectives and adverbs that leave a name what it is: a large, bright or left liver is a liver."""

VERBS = _keys(
    "tell explain describe say give show compare measure count list name repeat undo redo stop start go try do make "
    "let take get put see look find mark outline segment draw highlight remove delete add change keep hide zoom print "
    "save load open close check review report think know mean want need like can could would should shall will may "
    "might must use help work answer ask continue exclude include ignore"
)
"""Verbs that may follow "and" in a request."""

BROAD = _keys(
    "artery arteries vein vessel vessels nerve nerves muscle tumour tumor mass lump cancer carcinoma malignancy "
    "neoplasm lesion fat tissue cell cells nucleus nuclei cord core plaque swelling edema oedema hemorrhage hematoma "
    "bleed bleeding necrosis head skull foot feet blood ulcer wound sore ventricle matter sclerosis disc gland glioma "
    "vascular"
)
"""Words that name a trained target and, with another word before them, many other things."""

NAMES = _keys(
    "abscess ankle armpit belly bruise burn calf catheter chin ear electrode elbow embryo eyebrow fibrosis finger "
    "forehead fracture groin heel hernia hip infection jaw nail navel pacemaker palm parasite shin skeleton temple "
    "testicle throat toe tonsil tuberculosis worm wrist"
)
"""Everyday words for parts of a body and what may be seen in one that pydicom's SNOMED CT has in longer names only."""

HEADS = _keys(
    "aneurysm arm artery bone bundle bursa canal capsule cartilage cyst duct fascia fluid fold fossa gland hernia "
    "implant joint junction ligament lobe membrane muscle nerve node notch pouch process ring sac septum sinus spine "
    "tendon tract trunk tube tubercle valve vein vessel"
)
"""Words that make a name of any words before them: a common bile duct, a yolk sac."""

STUDIES = _keys(
    "image picture photo photograph scan slice slices frame view study series ct mr mri xray ray radiograph film us "
    "ultrasound sonogram echo echocardiogram mammogram mammography fundus dermoscopy micrograph microscopy smear "
    "tomogram tomography angiogram"
)
"""Words for the picture itself: "this chest X-ray" is no structure, whatever stands before its last word."""

GENERIC = NOUNS | MODIFIERS
