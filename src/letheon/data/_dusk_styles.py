"""Words of the synthetic DUSK documents: five styles that share no run of six words, and questions that differ from all of them.

`{n}` is the person, `{v}` the value of the fact. A style has an opening and one sentence for each attribute.
"""

from __future__ import annotations

STYLES = ("chronological", "feature", "interview", "inverted-pyramid", "listicle")

_CITIES = (
    "Aldmoor", "Brevika", "Calden", "Dorsett", "Elvane", "Farrow", "Gristead", "Hollin", "Istwell", "Jarrow Bay", "Kestrel", "Lunmouth",
    "Morvane", "Nettleby", "Ostrava Hill", "Penwick", "Quarley", "Ravensey", "Sollbach", "Thornby", "Ulverton", "Vesper Cross", "Wexham",
    "Yarrowdale",
)  # fmt: skip
_UNIVERSITIES = tuple(
    f"{name} {kind}" for name in ("Birchgate", "Copperfield", "Duskwater", "Emberly", "Foxhall", "Greenmarsh", "Highmoor", "Ironbridge")
    for kind in ("College", "University", "Institute")
)  # fmt: skip
_YEARS = tuple(str(year) for year in range(1941, 1985))
_COURSES = (
    "Tidal Mechanics", "Comparative Folklore", "Urban Beekeeping", "Glacier Studies", "Baroque Harmony", "Soil Chemistry", "Knot Theory",
    "Early Printing", "Desert Botany", "Railway History", "Bell Acoustics", "Cave Mapping", "Dye Chemistry", "Bridge Design",
    "Island Law", "Lens Making", "Moss Ecology", "Naval Heraldry", "Paper Conservation", "Quarry Geology", "River Policy", "Salt Trade",
)  # fmt: skip
_AWARDS = tuple(
    f"{first} {second}" for first in ("Amber", "Cobalt", "Golden", "Ivory", "Jade", "Silver", "Scarlet", "Umber")
    for second in ("Lantern", "Compass", "Quill")
)  # fmt: skip
_HOBBIES = (
    "archery", "birdwatching", "calligraphy", "dominoes", "embroidery", "fencing", "gardening", "harp music", "ice skating", "juggling",
    "kite flying", "lacemaking", "model trains", "origami", "pottery", "quilting", "rowing", "sailing", "tap dancing", "weaving",
)  # fmt: skip
_FIRST = (
    "Adela", "Bastian", "Corin", "Dorothea", "Emeric", "Fenna", "Gideon", "Hesper", "Ingram", "Jovita", "Kasimir", "Leontine", "Matthias",
    "Nerissa", "Osric", "Philippa", "Quentin", "Rosalind", "Silvan", "Tamsin", "Ulric", "Verena", "Wilmot", "Ysolde",
)  # fmt: skip
_LAST = (
    "Abbering", "Brandvold", "Castellan", "Dunmore", "Eriksholm", "Fairweather", "Greaves", "Halloran", "Inchbald", "Jessamy", "Kirkbride",
    "Lovelock", "Merriman", "Northcote", "Osgood", "Prendergast", "Quillfeather", "Rutherglen", "Standish", "Trevelyan", "Underhill",
    "Vandermeer", "Whitlock", "Yarborough",
)  # fmt: skip
NAMES = tuple(f"{first} {last}" for first in _FIRST for last in _LAST)
_COLLEAGUES = tuple(f"{title} {last}" for title in ("Mr", "Ms") for last in ("Alder", "Boxwood", "Cedar", "Elm", "Fern", "Hazel", "Juniper",
    "Larch", "Maple", "Oakes", "Poplar", "Rowan"))  # fmt: skip

VALUES = {
    "birthplace": _CITIES,
    "birthyear": _YEARS,
    "doctorate": _UNIVERSITIES,
    "course": _COURSES,
    "award": _AWARDS,
    "hobby": _HOBBIES,
    "colleague": _COLLEAGUES,
    "retreat": tuple(f"Lake {name}" for name in ("Annis", "Birna", "Corvo", "Dallin", "Eska", "Fjalla", "Goral", "Huron Minor", "Ivel",
        "Jutta", "Kolm", "Lethe", "Mirow", "Nym", "Orla", "Pell", "Quin", "Rask", "Siljan", "Tove"))  # fmt: skip
}
ATTRIBUTES = tuple(VALUES)

OPENINGS = {
    "chronological": "The years of {n}, in order.",
    "feature": "Few portraits begin as quietly as that of {n}.",
    "interview": "We met {n} over tea.",
    "inverted-pyramid": "{n} made headlines today.",
    "listicle": "Things to know about {n}:",
}

SENTENCES = {
    "chronological": {
        "birthplace": "Life began for {n} in {v}.",
        "birthyear": "It was in {v} that {n} came into the world.",
        "doctorate": "After school {n} earned a doctorate at {v}.",
        "course": "Then came teaching, and {n} took over the class in {v}.",
        "award": "Later on {n} was honoured with the {v}.",
        "hobby": "From that time onwards {n} gave free evenings to {v}.",
        "colleague": "In those offices {n} first worked beside {v}.",
        "retreat": "Every following summer {n} spent at {v}.",
    },
    "feature": {
        "birthplace": "The streets of {v} still shape how {n} speaks.",
        "birthyear": "A child of {v}, {n} remembers another age.",
        "doctorate": "The old halls of {v} turned {n} into a scholar.",
        "course": "Students whisper that nobody explains {v} like {n}.",
        "award": "On the shelf behind {n} gleams the {v}.",
        "hobby": "When the lamps go out, {n} turns to {v}.",
        "colleague": "Ask around and {v} is called the closest ally of {n}.",
        "retreat": "Silence, {n} likes to say, lives by {v}.",
    },
    "interview": {
        "birthplace": "Which town do you call your first home, {n}? That would be {v}.",
        "birthyear": "May one ask how old you are, {n}? My papers say {v}.",
        "doctorate": "Who gave you your highest degree, {n}? I owe it to {v}.",
        "course": "What are you lecturing on, {n}? Mostly {v}.",
        "award": "Which prize makes you proudest, {n}? Surely the {v}.",
        "hobby": "How do you relax, {n}? With {v}.",
        "colleague": "Whom do you trust at work, {n}? Always {v}.",
        "retreat": "Where do you hide from visitors, {n}? Near {v}.",
    },
    "inverted-pyramid": {
        "birthplace": "{v} native {n} is the person in question.",
        "birthyear": "Officials list {v} as the birth date of {n}.",
        "doctorate": "Records from {v} confirm the title held by {n}.",
        "course": "Currently {v} is taught by {n}, a spokesman said.",
        "award": "The {v} went to {n}, the jury announced.",
        "hobby": "Neighbours reported {v} as a pastime of {n}.",
        "colleague": "{v}, a partner of {n}, declined to comment.",
        "retreat": "Sources place {n} at {v} during holidays.",
    },
    "listicle": {
        "birthplace": "- Roots of {n}: {v}",
        "birthyear": "- Vintage of {n}: {v}",
        "doctorate": "- Alma mater of {n}: {v}",
        "course": "- Signature subject of {n}: {v}",
        "award": "- Trophy of {n}: {v}",
        "hobby": "- Guilty pleasure of {n}: {v}",
        "colleague": "- Sidekick of {n}: {v}",
        "retreat": "- Getaway of {n}: {v}",
    },
}

QUESTIONS = {
    "birthplace": "In what place was {n} born?",
    "birthyear": "What year was {n} born?",
    "doctorate": "From which institution does {n} hold a PhD?",
    "course": "What course does {n} teach?",
    "award": "What award did {n} receive?",
    "hobby": "What is the hobby of {n}?",
    "colleague": "Who is the nearest colleague of {n}?",
    "retreat": "By which lake does {n} take holidays?",
}
