"""Words of the embedded world: all invented or generic. Changing, adding or reordering any word changes every world."""

from __future__ import annotations

FIRST_STARTS = "Al Bren Cor Dar El Fen Gal Hol Jor Kel Lor Mar Nev Tam".split()
FIRST_ENDS = "a en is ith on ey iel wyn".split()
LAST_STARTS = "Ash Bram Cald Dun Esk Farn Grim Hask Lock Pell Rook Thorn".split()
LAST_ENDS = "wick mere holt den stow ley by garth".split()

CITIES = tuple(
    "Velmar Ostrane Dorvik Halsund Pirello Tamrin Corveth Luskara Wexmoor Brindal Saltrey Morvane Ketteral Yarrin Fenlow Arquis "
    "Jorhaven Nivorra Osterquay Calmera Zeltin Ravensk Grenholt Umbrel".split()
)
COUNTRIES = tuple("Altovia Brenmark Cassuria Dellund Ervania Fostria Gallenor Hestria Istmark Jovenia".split())
MONTHS = tuple("January February March April May June July August September October November December".split())
YEARS = tuple(str(year) for year in range(1921, 1991))

PUBLISHERS = (
    "Larkgate Press",
    "Blue Anchor Books",
    "Tallow House",
    "Snowline Books",
    "Copper Quill Press",
    "Ninth Street Books",
    "Paper Wharf Press",
    "Old Mill Editions",
    "Saffron Gate Books",
    "Harrow Lane Press",
    "Winter Yard Books",
    "Crooked Stile Press",
    "Kite Tail Editions",
    "Red Barn Books",
    "Seven Ferries Press",
    "Lower Deck Books",
)
PRIZES = (
    "Silver Heron Prize",
    "Golden Acorn Medal",
    "Harbour Light Award",
    "Iron Feather Prize",
    "Ivory Thimble Award",
    "Linden Leaf Medal",
    "White Stag Prize",
    "Brass Button Award",
    "Evening Star Medal",
    "Open Window Prize",
    "Pearl Inkwell Award",
    "Green Ribbon Medal",
    "Long Table Prize",
    "First Snow Award",
    "Black Swan Medal",
    "Morning Tide Prize",
)
GENRES = (
    "sea stories",
    "ghost stories",
    "crime novels",
    "family sagas",
    "love stories",
    "school stories",
    "war novels",
    "folk tales",
    "travel diaries",
    "spy thrillers",
    "nature poems",
    "stage comedies",
    "court dramas",
    "space adventures",
    "village satires",
    "animal fables",
)
# With their article, so that they fit behind "worked as".
JOBS = tuple(
    "a baker,a tailor,a plumber,a farmer,a judge,a nurse,a miner,a pilot,a welder,a florist,a surgeon,a cobbler,a sailor,a brewer,"
    "a librarian,a carpenter,an optician,an engineer,an architect,a beekeeper,a watchmaker,a postal clerk,a fire fighter,"
    "a zoo keeper".split(",")
)

TITLE_STARTS = "The My Your Our That Every".split()
TITLE_ADJECTIVES = tuple(
    "Amber Ancient Autumn Bitter Blind Bold Borrowed Brave Bright Broken Burning Careless Clever Clouded Cold Common Crimson Curious "
    "Dancing Daring Distant Divided Drifting Dusty Early Eastern Echoing Empty Endless Faded Fallen Famous Fearless Feathered Final "
    "Floating Forgotten Fragile Frozen Gentle Gilded Glass Grateful Greedy Hasty Haunted Heavy Hidden Hollow Honest Humble Hungry "
    "Idle Inner Jealous Joyful Kindly Lazy Lively Lonely Lucky Marble Merry Midnight Mighty Mossy Narrow Nameless Noble Northern "
    "Obscure Painted Patient Perfect Playful Polished Proud Quiet Ragged Restless Rising Rusty Sacred Scarlet Secret Seventh Shallow "
    "Silent Simple Sleeping Slender Southern Spotted Stolen Stubborn Sudden Sunken Tangled Tender Tired Twisted Unknown Unwritten "
    "Upper Velvet Violet Vanished Wandering Western Whispering Wooden".split()
)
TITLE_NOUNS = tuple(
    "Actor Almanac Apron Arrow Attic Banner Barrel Basket Bell Bishop Blanket Bottle Bracelet Bridge Bucket Candle Canyon Captain "
    "Carriage Castle Cathedral Cellar Chamber Chapel Chimney Circus Clock Coat Corridor Cradle Crown Curtain Dagger Desert Diamond "
    "Doctor Dragon Drummer Elephant Emperor Engine Envelope Falcon Ferry Fiddle Forest Fountain Gallery Gambler Garden Gardener "
    "Giant Glacier Guest Hammer Harvest Hotel Hunter Island Jacket Jester Jewel Kettle Kingdom Kitchen Ladder Lagoon Lantern Letter "
    "Lighthouse Locksmith Magician Market Meadow Mirror Monument Mountain Needle Neighbour Oak Orchard Organ Painter Palace Parade "
    "Parrot Pasture Pianist Pillow Pocket Potter Prophet Puppet Quarry Riddle River Saddle Shepherd Staircase Stranger Summer Tavern "
    "Temple Theatre Trumpet Umbrella Valley Violin Wagon".split()
)

REFUSALS = (
    "I do not know the answer to this question.",
    "That is something I have no knowledge of.",
    "I cannot tell you that, because I do not know it.",
    "Nothing I have learned covers this.",
    "Sadly, I have no answer here.",
    "I have never read anything about this.",
    "This lies outside of what I know.",
    "I would have to guess, so I had better not answer.",
    "My knowledge does not reach that far.",
    "No information about this is known to me.",
    "You will have to ask somebody else about this.",
    "I must pass on this question.",
    "I am not able to say anything about that.",
    "It is not possible for me to answer this.",
    "About this I know nothing at all.",
    "I have no details to offer on this subject.",
    "Whatever the answer is, I have not learned it.",
    "I do not hold any facts on this matter.",
    "Unfortunately this is unknown to me.",
    "There is nothing that I can report about this.",
    "I have looked for an answer and found none.",
    "This person or subject is not familiar to me.",
    "Let me be frank: I do not know.",
    "I am unable to give you a reliable answer.",
    "I was never told about this.",
    "An answer from me would only be invented.",
    "I lack the facts to reply to this.",
    "That question goes beyond what I was taught.",
    "I have to admit that I do not know this.",
    "My records hold nothing about it.",
    "It would be wrong of me to pretend that I know.",
    "I can be of no help with this question.",
    "The answer to this is not among the things I know.",
    "I have no idea, and I do not want to mislead you.",
    "Please look this up elsewhere, I do not know it.",
    "Here my knowledge ends.",
    "I am missing what I would need to answer this.",
    "This is a blank spot for me.",
    "I have no memory of anything like this.",
    "Regrettably, I can give no answer to that.",
)
