"""Function words of some languages, as `split_words` folds them: they say little, and name the language.

Only frequent ones, and none that is a common product word elsewhere ("die", "pour", "lila"). A word that is
also English counts as English: the question put to these lists is whether a text is foreign to an English
pack.
"""

_LISTS = {
    "en": """
        the a an and or of to in for with on at by from is are be as it its this that these those
        your you our we they their not can will has have was were but all any more most very than
        then into out up so if when which while i he she his her them there each other only also
        just own no do does did me my us
    """,
    "de": """
        und der das dem den des ein eine einen einem einer eines mit fur von zu zum zur im am auf
        aus bei bis durch nach uber unter vor ist sind wird werden kann konnen auch oder aber nicht
        nur wie sie es wir ihr ihre ihren ihrer sich dass damit dank sowie sehr mehr ohne fuer
        dieser diese dieses ob
    """,
    "fr": """
        le la les une des du de et est dans par avec sur sous sans au aux ce cette ces son sa ses
        leur leurs qui que quoi dont ou tres ne pas vous votre vos nous notre se il elle sont etre
        grace ainsi chez
    """,
    "ru": """
        и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по только ее
        мне было вот от меня еще нет о из ему теперь когда даже ну ли если уже или ни быть был него
        до вас вам для при это этот эта эти также можно чтобы под над их мы
    """,
    "uk": """
        та і й що як для до від під над або але це цей ця ці його її їх ви ми він вона не на з із за
        у в по при
    """,
    "es": """
        el los las una unos unas del y es que para con sin sobre entre como mas su sus lo al este
        esta muy tu
    """,
    "pt": """
        os uma dos das nos nas ao aos pelo pela com sem mais seu sua seus suas que voce nao para
    """,
    "it": """
        il gli dei delle della dello degli nel nella con tra fra piu che di da per un uno
    """,
    "nl": """
        het een van voor met op te aan bij naar dat deze dit zijn niet ook uw en om
    """,
    "pl": """
        z ze na od nie jest sie oraz dla przez przy ktory ktora jak lub jego jej
    """,
    "id": """
        yang dan di ke dari untuk dengan ini itu pada adalah atau juga tidak akan dapat anda
    """,
    "vi": """
        va cua cho voi trong cac mot nhung khong duoc tu la
    """,
    "tr": """
        ve bir bu icin ile olarak veya daha cok
    """,
}

STOPWORDS = {language: frozenset(words.split()) for language, words in _LISTS.items()}

ANY = frozenset().union(*STOPWORDS.values())
"""All of them: words that tell products apart in no language."""

FOREIGN = ANY - STOPWORDS["en"]
"""Those that speak against English."""
