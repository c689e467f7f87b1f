"""Things to say: English sentences from a word list, and made-up words in the spelling of other languages.

Articulation follows sounds and not sense, so made-up words do as well as real ones, cover rare neighbours of
sounds better, and need no text of anyone else's.
"""

import random
from dataclasses import dataclass


def words_of(text: str) -> list[str]:
    """What stands between the blanks of the text."""
    return text.split()


_ENGLISH = words_of("""about above absent after album amber amble animal apple arm baby back bag bamboo bath beam bed
before began below bench better between beyond big bird black blame blue board boat body bone book both bottom
bowl box boy brave bread bridge bright bring broom brother brown bubble build bump burn bus but butter button buy
cabin camp captain carpet chair champion change chapter charm cheap cheese child choose church city climb clothes
club coffee comb come compare copper cotton could cousin cup curb damp dance daughter day deep dinner dream drive
drum dust each early earth easy edge eight elbow empty enough evening every example expect eye fable face fame
family far farm father feather fever few fifty film find finger fire fish five flame floor flower foam follow food
foot forest forgive found fox frame fresh friend from front full fumble game garden gave gentle give glad globe
glove go gold good grape green group grow gym half hammer hand happen happy harbour have hear heart heavy help
her home honey hope horse house human humble hundred ice imagine important improve inside iron jam job join joy
judge jump just keep kind kitchen knife lamb lamp large laugh leaf learn leave left lemon letter life limb lip
listen little live long loose love lumber machine make man map marble mark may maybe meadow measure member memory
middle might milk mirror moment money month moon more morning most mother mountain mouse mouth move much music
must my name napkin near never new night noble noise north nothing number ocean of off often old only open orange
other our oven over owl page paint pale paper part past path pay people pepper perhaps piano picture pig pimple
place plan play please plum pocket poem poor possible pound powder power prove public pull pumpkin purple push
queen quick quiet rabbit rain ramp ready reason remember ribbon rice right river robin room rope rough round rub
sample save school sea seven shadow shape sharp sheep ship shop short should shovel simple sister six sleep slim
small smile smooth snow soap some soup south speak spoon spring stamp steam step stone storm strong summer sun
super swim symbol table take temple than that the their them there these thick thin think this those thousand
thumb thunder time to today together tomb tomorrow top touch travel tree tribe trouble trumpet trust tube turn
twelve two umbrella under up use valley value vapour very vibe village visit voice vote wait walk wall want warm
wash watch water wave way we weather web welcome west wet what wheel when where which while white who why wide
wind window winter wish with woman wonder wood word work world would write yard year yellow yes you young zebra
zoo""")

_NASALS = words_of("""and announce another answer any anything band banner behind bend benefit bone brown can candle
canvas chance clean coin cone conference confess confide confirm confuse connect contain convey convince convoy corner
dance den dine dinner done down economy enjoy enough enter enthusiasm envy even fan fancy fence fine finish fun
functions gain gone green grown handful henchman income infant infer infinite inflate inform information in inner
instance intend invade invent invite iron kind know known lane lend line linen loan main man many mean mention mine
minute moan month moon nation nature near neither nine ninth no none noon noun now nun ocean on once one onion onward
open pan panther paint pence pin plan plenty pond question rain ran rein ring ruin run sand saint scene seen sentence
sign sing skin son song spend spoon stand sun sunflower sung than then thin thing thinner tin tone tongue tune turn
under unfair unfold unfit uniform union unite unknown until unveil van vanish vein vine wander want wine wing winner
woken yarn""")
"""Words full of /n/ and /ŋ/, which many a voice says much like /m/."""

_LITTLE = words_of("and but of to in on at by for from with or if as so the a my our their his her this that")

_HANZI = """的一是不了人我在有他这中大来上国个到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可
里后小么心多天而能好都然没日于起还发成事只作当想看文无开手十用主行方又如前所本见经头面公同三已老从动两长
知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业最间新
什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水万市眼体别处
总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金何更反合放做系计或司利受光王
果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字请交爱让认算论百吃义科怎
元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权往展该领传近留红治决周保达办运武半候七必城父强步
完革深区即求品士转量空甚众技轻程告江语英基派满式李息写呢识极令黄德收脸钱党倒未持取设始版双历越史商千片容
研像找友孩站广改议形委早房音火际则首单据导影失拿网香似斯专石若兵弟谁校读志飞观争究包组造落视济喜离虽坏
破苹葡萄朋跑抱飘帮棒本笨病饼冰兵拼盘胖旁怕爬拍排妈买卖猫忙帽妹梦迷米棉苗秒民磨摸莫木母亩"""

_BILABIAL_SHARE = 0.25
"""Share of made-up syllables that are given a bilabial onset where the language has one: p, b and m matter
most to the eye, and speech holds too few of them to learn from an hour."""


@dataclass(frozen=True)
class Spelling:
    """How a language's made-up words are spelt: syllables of onset + nucleus (+ coda)."""

    onsets: str
    bilabials: str
    nuclei: str
    codas: str = ""
    coda_share: float = 0.3


SPELLINGS = {
    "es": Spelling("d f g j l ll n ñ r s t v y ch qu c z tr pl br", "b p m", "a e i o u ie ue", "n s r l"),
    "de": Spelling(
        "d f g h j k l n r s t w z sch st pf fr kl", "b p m", "a e i o u ä ö ü ei au eu ie", "n m t ch r f ng s p"
    ),
    "fr": Spelling(
        "d f g j l n r s t v z ch tr fl", "b p m", "a e i o u é è ou an on in eau oi eu ui", "r l n m te ve che"
    ),
    "it": Spelling("d f g l n r s t v z gn sc ch c tr gl", "b p m pp mm", "a e i o u ia uo", "n r l", 0.15),
    "ru": Spelling("в г д ж з к л н р с т ф х ц ч ш щ", "б п м", "а е и о у ы э ю я", "н м т к р л в"),
    "hi": Spelling("क ख ग घ च ज ट ड त थ द न र ल व श स ह य", "प फ ब भ म", "ा ि ी ु ू े ै ो ौ", "न म र ल"),
    "tr": Spelling("c ç d f g h j k l n r s ş t v y z", "b p m", "a e ı i o ö u ü", "n m r l k ş p"),
    "pl": Spelling("c cz d dz f g h j k l ł n r rz s sz ś t w z ż", "b p m", "a ą e ę i o u y ó", "n m t k w ł"),
    "ar": Spelling("ت ث ج ح خ د ذ ر ز س ش ص ط ع غ ف ق ك ل ن ه و ي", "ب م", "َ ِ ُ َا ِي ُو", "ْن ْم ْر ْل"),
    "cs": Spelling(
        "d f g h ch j k l n r ř s š t v z ž c č ď ť ň", "b p m", "a e i o u á é í ý ou", "n t s k l r š", 0.3
    ),
    "nl": Spelling("d f g h j k l n r s t v w z sch", "b p m", "a e i o u aa ee oo ui ij eu ou oe ie", "n m t k f r p"),
    "sw": Spelling("ch d f g h j k l n ng ny r s sh t v w y z", "b p m mb mp", "a e i o u", "", 0.0),
    "fi": Spelling("h j k l n r s t v", "p m", "a e i o u y ä ö aa ii uu yö", "n s t l r"),
    "el": Spelling("γ δ θ κ λ ν ξ ρ σ τ φ χ ψ ζ", "μπ π μ β", "α ε ι ο ου", "ς ν ρ", 0.2),
    "pt": Spelling("c d f g j l lh n nh r s t v z ch", "b p m", "a e i o u ão ei ou ã", "s r l m"),
    "sv": Spelling("d f g h j k l n r s t v sj tj", "b p m", "a e i o u y å ä ö", "n m t r l v p"),
}

_KANA = words_of(
    "か き く け こ さ し す せ そ た ち つ て と な に ぬ ね の は ひ ふ へ ほ や ゆ よ ら り る れ ろ わ "
    "が ぎ ぐ げ ご ざ じ ず ぜ ぞ だ で ど あ い う え お ん しゃ しゅ しょ ちゃ ちゅ ちょ きょ りょ じゃ"
)
_BILABIAL_KANA = words_of("ま み む め も ば び ぶ べ ぼ ぱ ぴ ぷ ぺ ぽ みょ びょ")

_HANGUL_FIRST, _HANGUL_VOWELS, _HANGUL_LASTS = 0xAC00, 21, 28
_HANGUL_ONSETS = 19
_HANGUL_BILABIAL_ONSETS = (6, 7, 8, 17)  # m, b, pp, ph
_HANGUL_CODAS = (0, 0, 0, 1, 4, 8, 16, 17, 21)  # none, k, n, l, m, p, ng


def utterance(language: str, rng: random.Random) -> str:
    """One sentence of 4 to 11 words in the language (an espeak-ng voice name, or "en-nasals"), sometimes with a comma
    or a number. Raises KeyError for a language of which no spelling is known."""
    words = [_word(language, rng) for _ in range(rng.randint(4, 11))]
    if rng.random() < 0.3:
        words.insert(rng.randrange(len(words)), str(rng.randint(0, 9999)))
    if len(words) > 5 and rng.random() < 0.5:
        words[rng.randint(1, len(words) - 3)] += ","
    joint = "" if language in ("cmn", "ja") else " "
    return joint.join(words).capitalize() + rng.choice("..?")


def _word(language: str, rng: random.Random) -> str:
    if language.startswith("en"):
        nasal = language == "en-nasals" and rng.random() < 0.5
        return rng.choice(_LITTLE) if rng.random() < 0.25 else rng.choice(_NASALS if nasal else _ENGLISH)
    syllables = rng.randint(1, 2) if language == "cmn" else rng.randint(1, 4)
    return "".join(_syllable(language, rng) for _ in range(syllables))


def _syllable(language: str, rng: random.Random) -> str:
    bilabial = rng.random() < _BILABIAL_SHARE
    if language == "cmn":
        return rng.choice([sign for sign in _HANZI if not sign.isspace()])
    if language == "ja":
        return rng.choice(_BILABIAL_KANA if bilabial else _KANA)
    if language == "ko":
        onset = rng.choice(_HANGUL_BILABIAL_ONSETS) if bilabial else rng.randrange(_HANGUL_ONSETS)
        vowel, coda = rng.randrange(_HANGUL_VOWELS), rng.choice(_HANGUL_CODAS)
        return chr(_HANGUL_FIRST + (onset * _HANGUL_VOWELS + vowel) * _HANGUL_LASTS + coda)
    spelling = SPELLINGS[language]
    onset = rng.choice((spelling.bilabials if bilabial else spelling.onsets).split())
    coda = rng.choice(spelling.codas.split()) if rng.random() < spelling.coda_share else ""
    return onset + rng.choice(spelling.nuclei.split()) + coda
