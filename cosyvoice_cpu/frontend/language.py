"""The language of a paragraph, by evidence: its scripts, then the small words of each language.

Latin letters alone say nothing. A text is English where English words outweigh those of the other
languages below; where nothing speaks for any language the answer is None, and whoever asks goes by
the neighbours. A word counts the less, the more of the languages have it ("in", "was", "me").
"""

from __future__ import annotations

import re
from collections import Counter

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.frontend.writing_systems import MARK

__all__ = ["check_language", "language_of", "language_of_sentence"]

SEEN = 4000  # characters of a text that are looked at

_WORDS = {
    "en": """
    a about above across after again against ago all almost alone along already also although always
    am among an and another any anyone anything are aren't around as ask asked at away back be
    became because become been before began behind being believe below best better between big both
    boy bring brought but buy bought by call called came can can't cannot car chapter children city
    close come comes coming cost costs could couldn't country day days did didn't do does doesn't
    doing done don't door down dollars during each early easy eat eight either else end enough even
    evening ever every everyone everything eyes face fact family far father feel feet few find first
    five follow for found four friend friends from full gave get gets getting girl give given gives
    go goes going gone good got great had half hand hands happened happy hard has hasn't have
    haven't having he head hear heard hello help her here hers herself high him himself his home
    hour hours house how however hundred i i'd i'll i'm i've idea if important in inside into is
    isn't it it's its itself just keep kept kind knew know known knows large last late later least
    leave left less let let's life light like line lines little live lived long look looked looking
    lost lot love made make makes making man many may me mean meet men might miles million mind
    minute money month months more morning most mother mr mrs much must my myself name near need
    needs never new next night nine no nobody none nor not nothing now number of off often old on
    once one only open or order other others our out over own page paid part people per perhaps
    place play please pounds price put question quick quite ran rather read ready really right room
    run said same sat saw say says school second see seem seemed seen sell send sent set seven
    several shall she she's should shouldn't show side since sit six small so sold some someone
    something sometimes soon speak spoke start started stay still stood stop store street such
    sure take taken takes talk tell ten than thank thanks that that's the their them themselves
    then there there's these they they're thing things think third this those thought thousand three
    through time times to today together told tomorrow tonight too took toward town tried try turn
    turned twice two under until up upon us use used using very wait walk want wanted wants was
    wasn't watch water way we we'll we're we've week weeks well went were weren't what what's when
    where whether which while who whole whose why wife will window with within without woman women
    won't word words work worked world would wouldn't write written wrote year years yes yesterday
    yet you you'd you'll you're you've young your yours
    able accident account act action actually add address age agree air airport allow amount animal
    animals answer apartment army arrived article attack author average baby bad bag bank battery
    battle bed birds birth birthday black blood blue board body bottle bottom bottles bridge bright
    broken brother brown build building buildings built burned bus business calls care carried case
    cat cats cause ceiling cell cents century certain chair chairs chance change changed charge
    check cheap cheaper child church class clean clear clock clothes cloud clouds cold color colour
    common company compare computer contains cook cool corner correct council count counted course
    covered crowd cut daily dark date daughter dead deal dear death december decided deep degrees
    delivered delivery department device different difficult dinner distance doctor dog dogs dollar
    double dozen dress drink drive driver drop dry due earth east easily edge egg elected employees
    ended engine english entire equal equipment every exactly example expect expected experience
    explain extra fall falls families farm fast fear february feels fell fifteen fifth fifty fight
    figure file files filled final finally fine finish finished fire fish flight floor flower
    flowers fly food foot football forest forget forgot form former forty forward fourth fox free
    fresh friday friendly front fruit full funny further future game garden gas general gift glad
    glass goal god gold government grass gray green ground group grow growing guess hair happen
    happens hat heart heat heavy height held hill history hit hold hole holiday hope horse horses
    hospital hot hotel huge human hundreds hurt ice increase increased industry interest island
    january job join joined july jump jumps june king kitchen lady lake land language laugh law lay
    lazy lead learn learned leaves led legs lesson letter letters level lie likely list listen
    lives lock longest lower lunch machine main major march mark market married matter maybe meal
    meaning measure meat meeting meets member members message met metal middle mile milk mine model
    modern moment monday money moon mountain mouth move moved movie museum music nearly neck
    neither news newspaper nice noise normal north nose note notes notice novel november nurse
    ocean october offer office officer oil older onto opened opens opinion orange ordered original
    outside owner own packet paint pair paper parents park parts party pass passed passengers past
    path patients pay peace pen pencil period phone photo photos pick picture pictures piece pieces
    pink plan plane planet plant plants played player players plus pocket point points police
    popular population position possible power president press pretty prices print problem problems
    product products profit program project promise public pull purple push quarter queen quickly
    quiet quietly race radio rain rained ran rate reached reading ready reason received recent
    record red remain remember remove repeat replaced reply report reports required research rest
    result results return returned rice rich ride ring rise river road rock role roof rooms rose
    round row rule rules running safe sale sales salt sand saturday save saved scale scene science
    score scored sea season seat section secret seems sells sense sentence september series serious
    serve service shape share shares ship ships shirt shoes shop short shot shoulder shut sick sign
    signed silver similar simple sing single sister size skin sky sleep slow slowly smile smoke
    snow social soft soldiers solution son song songs sorry sort sound soup south space special
    speed spend spent spring square staff stage stairs stand standard star stars state states
    station step steps stick stone stopped storm story straight strange stream strong student
    students study stuff style subject success sudden suddenly sugar suggest summer sun sunday
    support supper surface surprise sweet swim system table talked talking tall taste taught
    taxi teach teacher team teeth television temperature tenth terrible test text theater theatre
    thick thin thirteen thirty throw thrown thursday ticket tie tired title tomorrow tonight tool
    tools tooth top total touch tour town track trade traffic travel tree trees trip trouble truck
    true trust truth tuesday twelve twenty type understand union unit university upper useful usual
    usually valley value various version via victory village visit visited voice volume vote waited
    waiting walked walking wall walls war warm wash wasted waste weak wear weather wednesday weigh
    weighs weight welcome west wheel wheels white wide wild wind windows wine wing winter wish wives
    won wonder wood wooden workers working worth wrong yard yellow yesterday youth zoo
    humidity kid kids paid per user users
    apples bananas born born bread books boxes coffee cups eggs flights games guests inches items
    kilometers minutes oranges page pages pears percent seats seconds tables tea tickets units votes
    """,
    "de": """
    aber alle allem allen aller alles als also am an andere art auch auf aus bei beim bis bitte da
    damit
    danach dann das dass dein dem den denn der des dich die dies diese dieser dieses dir doch dort
    du durch ein eine einem einen einer eines er es etwas euch für gegen geht gibt gut habe haben
    hat hatte heute hier hinter ich ihm ihn ihr ihre im in ins ist ja jahr jahre jeder jetzt kann
    kein keine kommt kostet können machen man mehr mein meine mich mir mit morgen muss nach nein
    nicht nichts noch nun nur oder ohne schon sehr sein seine seit sich sie sind so stunden tage
    über um und uhr uns unser unter viel vom von vor war waren was wegen weil wenn wer werden wie
    wieder will wir wird wo wurde wurden zu zum zur zwischen euro stück
    kilometer april august september november bank ball bus butter bald fast finger gold hand hotel
    kind kinder land lag liter meter minute minuten name note park plan preis problem radio ring
    rock rose seite seiten september stern system tag taxi temperatur test text total version wand
    warm wild wind winter woche gut grad prozent person personen
    """,
    "fr": """
    à ai alors après as au aussi autre aux avant avec avez avoir avons c'est car ce cela ces cet
    cette chez comme dans de depuis des deux dit donc du elle elles en encore entre est et
    était été être eu fait faut fois heures heure il ils j'ai je jour jours jusqu'à l'on la le les
    leur leurs lui ma mais me mes moi moins mon même n'est ne non nos notre nous on ont ou où par
    pas pendant peu peut plus pour prix puis qu'il quand que quel quelle qui rien s'il sa sans se
    ses si sont sous sur ta tes toi ton tous tout toute toutes train très tu un une va vers voici
    voilà vos votre vous y ans coûte coûtent mètres pommes
    page pages minute minutes table tables place places machine service services science message
    distance animal orange total version train long date image point points rose possible simple
    moment fort tour car son an six dix douze cent mille euros plus prix température kilomètres
    personnes région question surface solution situation nation action attention position patients
    """,
    "es": """
    a además ahora al algo antes años aquí así aunque bien cada casa como con cosa cuando cuesta
    cuestan de del desde después día días donde dos e el él ella ellos en entre era es esa ese eso
    esta está están estar estas este esto estos fue fueron ha había hace hacia han hasta hay he hora
    horas hoy la las le les lo los manzanas más me mi minutos mis mucho muy nada ni no nos nosotros
    nuestro o otra otro para pero poco por porque puede pues que qué quien se sea según ser si sí
    sido sin sobre son su sus también tan tanto te tengo tenía tiene tienen todo todos tren tu un
    una uno unos usted veces y ya yo euros personas
    animal hospital hotel taxi radio central total general final plan metros grados kilómetros libro
    libros precio euro semana mes meses mil cien
    """,
    "it": """
    a adesso ai al alla alle allora altri anche ancora anni aveva c'è che chi ci cinque ci come con
    cosa così costa costano cui da dal dalla degli dei del della delle di dopo dove due e è ed era
    essere fa fino fra gli ha hanno ho i il in io l'ho la le lei li lo loro lui ma mai me mele mi
    mia mio minuti molto nei nel nella nelle nessuno noi non nostro o ogni oggi ora ore per perché
    più poco poi prima può qua quale quando quanto quattro quello questa questo qui sarà se sei
    sempre senza si sia siamo sono sopra sotto sta stata stato su sua sul sulla suo te tempo ti tra
    tre treno tu tutti tutto un una uno va vi voi
    radio hotel taxi auto euro prezzo libri gradi chilometri metri settimana mesi persone totale
    """,
    "nl": """
    aan al alle alles als altijd ander ben bij daar dan dat de deze die dit doen door dus een eens
    en er ga geen had heb hebben heeft hem het hier hij hoe hun iets ik in is ja jaar je jij jullie
    kan komt kost kosten kunnen maar meer men met mij mijn minuten moet na naar niet niets nog nu of
    om omdat onder ons onze ook op over te tegen toch toen tot trein u uit uur uw van veel vertrekt
    vijf voor waar waren was wat we weer wel werd wezen wie wij wil worden wordt zal ze zei zich
    zij zijn zo zonder zou appels mensen
    week weken water land hand park warm winter wind pen graden euro liter meter boek boeken prijs
    bus plan test tekst per kilometer personen dagen
    """,
    "pt": """
    a ao aos apenas aqui as até bem cada com como da das de depois dia do dois dos e é ela ele eles
    em entre era essa esse está estão eu foi foram há hoje horas isso isto já la lhe mais mas me
    mesmo meu minha minutos muito na não nas nem no nos nós nossa o onde os ou para pela pelo por
    porque pode quando quatro que quem se sem ser seu só sua são também te tem tinha todos trem três
    tu tudo um uma você à às anos custa
    """,
    "tr": """
    acaba ama ancak artık asla aslında az bana bazı belki ben beni benim beş bile bir biraz biri
    birkaç biz bu buna bunu çok çünkü da daha dakika de defa diye dolar en fakat gibi gün hem hep
    her hiç için ile ise kadar kez ki kilo kişi kim lira mı mi mu mü nasıl ne neden nerede niçin
    o olan olarak oldu olduğu olur on ona onlar onu sanki saat sen siz sonra şey şu tren tüm var ve
    veya ya yani yıl yılında yok yüzde
    hotel radyo plan bin milyon derece metre kilometre tane elma
    """,
    "id": """
    ada adalah akan anda apa atau bagi bahwa banyak baru beberapa belum bisa buah dalam dan dari
    dengan di dia hanya harga harganya hari harus ini itu jadi jam jika juga kali kami kamu karena
    ke kereta kepada kita lagi lebih mereka menit menjadi milik namun oleh orang pada para rupiah
    saat saja sampai sangat satu saya sebagai sebuah sedang sekarang semua seperti setelah siapa
    sudah tahun tanggal telah tetapi tiba tidak untuk yang
    hotel bank radio bus program minggu bulan ribu juta derajat meter kilometer buku apel
    """,
    "sv": "att av den det en ett för från har här i inte jag kan med men när och om på som till är",
    "da": "af at den der det du en er et for fra har ikke jeg kan med men når og om på som til var",
    "no": "av at den det en er et for fra har ikke jeg kan med men når og om på som til var",
    "fi": "ei että hän ja joka jos kun minuuttia minä mutta mukaan myös niin on ovat se sen tai",
    "pl": "ale by co czy dla do i jak jest już koszt mam na nie od po przed się są tak w z za że",
    "cs": "a ale byl být co do jak je jsem jsou k která který na nebo od po při se s to ve v z že",
    "hu": "a az be csak de egy el ez és hogy is ki már meg mint nem perc van volt vagy",
    "ro": "a au că ce cu de din este fi în la lui mai minute nu o pe pentru sau se și sunt un",
    "vi": "bạn có các cho của đã đến được không là lúc một người những này phút rất tôi và với",
}
_WEIGHTS: dict[str, dict[str, float]] = {}
_held = Counter(word for words in _WORDS.values() for word in set(words.split()))
for _language, _list in _WORDS.items():
    for _word in set(_list.split()):
        _WEIGHTS.setdefault(_word, {})[_language] = 1 / _held[_word]

_HAN = re.compile("[々\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\u31f0-\u31ff\uff66-\uff9d]")
_SCRIPTS = {
    "ko": re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7af]"),
    "ru": re.compile("[\u0400-\u04ff]"),
    "ar": re.compile("[\u0620-\u064a\u066e-\u06d3]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u05d0-\u05ea]"),
    "hi": re.compile("[\u0904-\u0963]"),
    "th": re.compile("[\u0e01-\u0e4e]"),
}
_LATIN_WORD = re.compile("(?<![\\d'])[A-Za-z\u00c0-\u024f\u1e00-\u1eff]+(?:'[a-zà-ÿ]+)*(?!\\d)")
_ENGLISH_SHAPE = re.compile(r"(?:[a-z]{3}(?:ing|ed|ly|ness|ough|ght)|[a-z]ck|wh[a-z]+)\Z")
_ACCENTED = re.compile("[^\x00-\x7f]")
_CHINESE_MARK = re.compile("[。，、；：！？（《【]")
_ADDRESS = re.compile(r"(?:https?://|www\.)[!-~]+|[!-?A-~]+@[!-~]+")
_LEAST_KANA, _LEAST_NO = 0.05, 0.15  # of Han and kana together; 「の」 alone also decorates Chinese
_CLEAR_AMONG_LATIN, _CLEAR_BESIDE_HAN = 2.0, 1.5
_SHAPE = 0.3  # what a word of English shape weighs that is in no list
_ACCENT = 0.4  # what a word with an accent weighs against English
_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{2,8})*\Z")


def language_of(text: str) -> str | None:
    """ISO 639 code of the language that `text` is in, None without evidence.

    A code that isn't one of `grammars.GRAMMARS` says that the text is in none of those; which
    language it is exactly is then a guess.
    """
    return _evidence(text)[0]


def language_of_sentence(sentence: str, paragraph: str | None) -> str | None:
    """The language of a sentence in a paragraph of language `paragraph`.

    The paragraph's, unless the sentence itself says clearly that it is in another.
    """
    own, score = _evidence(sentence)
    if own is None or own == paragraph or paragraph is None:
        return own or paragraph
    if own == "zh" and paragraph == "ja":
        return paragraph  # a sentence without kana
    if own in _SCRIPTS or own in ("zh", "ja"):
        return own
    latin = paragraph in _WORDS or paragraph == "und"
    return own if score >= (_CLEAR_AMONG_LATIN if latin else 1.0) else paragraph


def _evidence(text: str) -> tuple[str | None, float]:
    """The language and how much speaks for it, in words that only it has."""
    text = _ADDRESS.sub(" ", MARK.sub(" ", text[:SEEN])).replace("’", "'")
    han, kana = len(_HAN.findall(text)), _KANA.findall(text)
    if kana:
        share = len(kana) / (han + len(kana))
        if share >= (_LEAST_NO if set(kana) == {"の"} else _LEAST_KANA):
            return "ja", len(kana)
    words = _LATIN_WORD.findall(text)
    others = {name: len(script.findall(text)) for name, script in _SCRIPTS.items()}
    name, count = max(others.items(), key=lambda item: item[1])
    if count > max(han, sum(map(len, words)) / 3):
        return name, count
    latin, score = _latin_language(words)
    if not han and not words and _CHINESE_MARK.search(text):
        return "zh", 0.5
    if han:
        # A Chinese name in a sentence of another language, or foreign names in a Chinese one.
        clear = latin is not None and score >= _CLEAR_BESIDE_HAN and len(words) > han
        return (latin, score) if clear else ("zh", han)
    return latin, score


def check_language(language: str | None) -> str | None:
    """The code of `language`: "zh" of "zh-CN". Raises: UsageError for what is no language code."""
    if language is None:
        return None
    found = _TAG.match(language)
    if found is None:
        raise UsageError(
            f"{language!r} is no language code", "give two or three letters: zh, en, ja, de, ..."
        )
    code = found[1].lower()
    return {"cmn": "zh", "chi": "zh", "zho": "zh", "eng": "en", "jpn": "ja"}.get(code, code)


def _latin_language(words: list[str]) -> tuple[str | None, float]:
    """The language with most evidence and how much that is; None where two are even."""
    scores: dict[str, float] = {}
    accents = 0
    for word in words:
        weights = _WEIGHTS.get(word.lower())
        if weights is None and _ENGLISH_SHAPE.search(word):
            weights = {"en": _SHAPE}
        for language, weight in (weights or {}).items():
            scores[language] = scores.get(language, 0.0) + weight
        accents += _ACCENTED.search(word) is not None
    english = scores.pop("en", 0.0)
    other, most = max(scores.items(), key=lambda item: item[1], default=("und", 0.0))
    against = max(most, _ACCENT * min(accents, 2))
    if english > against:
        return "en", english
    if against > english:
        return other, against
    return None, 0.0
