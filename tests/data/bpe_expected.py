"""Writes tests/fixtures/bpe_expected.json: token ids of open_clip's tokenizer for texts that are hard to clean, split or join.

    python -m venv /tmp/venv && /tmp/venv/bin/pip install open_clip_torch==3.3.0 ftfy==6.3.1
    /tmp/venv/bin/python tests/data/bpe_expected.py
"""
import json
import pathlib

from open_clip.tokenizer import SimpleTokenizer

TEXTS = [
    "", " ", "a", "A photo of a CAT.", "a photo of a t-shirt/top", "the quick brown fox jumps over the lazy dog",
    "I'll've we're they'd he's can't IT'S", "don''t  'tis o'clock 'S", "3.14159 100% #hashtag @user http://example.org/a?b=c", "1234567890 007 2nd ½ ² Ⅷ ٣",
    "naïve café, straße & Œuvre", "CAFE\u0301 vs CAF\u00c9", "İstanbul ISTANBUL ıstanbul", "ΟΔΥΣΣΕΥΣ ὈΔΥΣΣΕΎΣ", "Привет, мир! ПРИВЕТ", "日本語のテキスト and English",
    "中文字符测试，标点。", "한국어 텍스트", "العربية نص", "हिन्दी पाठ", "ภาษาไทย", "emoji 🙂🚂 mixed 👩‍👩‍👧‍👦 🇩🇪", "\u201ccurly\u201d \u2018quotes\u2019 it\u2019s",
    "&lt;b&gt;html &amp;amp; entities&lt;/b&gt;", "&ldquo;hi&rdquo; &eacute;t&eacute &copy 2020 &notit; &#233; &#xE9; &#x1F600; &#128; &#0; &unknown; AT&T &",
    "&amp;ldquo;twice&amp;rdquo;", "<p>&ldquo;markup&rdquo; &eacute;</p>", "tabs\tand\nnew\r\nlines\u2028and\u00a0blanks\u3000here\u200b!", "ﬁne ﬂow oﬀice ĳ Ǆ ŉ",
    "ＦＵＬＬ ｗｉｄｔｈ　１２３！", "ﾊﾝｶｸ", "bell\x07 \x1b[36;44mblue\x1b[0m del\x7f bom\ufeff", "c1 \x93quoted\x94 \x85", "a_b_c __init__ --flag=value ...!!!???",
    "$5.00 €7 £8 ¥9", "x" * 300, "word " * 120, "supercalifragilisticexpialidocious", "Donaudampfschifffahrtsgesellschaft", "ABCdefGHI camelCase snake_case",
    "e=mc^2; f(x)=∫x²dx ≈ ∞", "#1!'s ?'re .'ll", "Zürich—Genève–Basel…", "~`!@#$%^&*()-_=+[]{}\\|;:'\",<.>/?", "soft\u00adhyphen zero\u200djoiner",
    "\u0130\u0131\u017f\u1e9e\u212a", "Åse ÅSE A\u030ase", "a\u0301\u0323 q\u0307\u0323", "ＡＴ＆Ｔ", "one\x1ctwo\x1dthree\u0085four",
]

tokenizer = SimpleTokenizer()
cases = [{"text": text, "ids": tokenizer.encode(text)} for text in TEXTS]
path = pathlib.Path(__file__).parent.parent / "fixtures/bpe_expected.json"
path.write_text(json.dumps({"made_by": "tests/data/bpe_expected.py, open_clip_torch 3.3.0, ftfy 6.3.1", "cases": cases}) + "\n")
