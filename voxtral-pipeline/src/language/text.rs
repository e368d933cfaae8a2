//! The language by the words of a text, which `whatlang` tells by their letters and trigrams.

use voxtral_tokenizer::Language;
use whatlang::{Detector, Lang};

use super::{DetectedLanguage, LanguageSource};

/// The least confidence that is reported. Of short sentences in seven languages, and of digits in
/// four, all that have more were right, and half of those that have less; three sentences in a row
/// have it.
const LEAST_CONFIDENCE: f64 = 0.4;

/// The languages that it tells, by the codes of ISO 639-1.
#[rustfmt::skip]
const LANGUAGES: [(&str, Lang); 70] = [
    ("af", Lang::Afr), ("ak", Lang::Aka), ("am", Lang::Amh), ("ar", Lang::Ara), ("az", Lang::Aze), ("be", Lang::Bel),
    ("bg", Lang::Bul), ("bn", Lang::Ben), ("ca", Lang::Cat), ("cs", Lang::Ces), ("cy", Lang::Cym),
    ("da", Lang::Dan), ("de", Lang::Deu), ("el", Lang::Ell), ("en", Lang::Eng), ("eo", Lang::Epo),
    ("es", Lang::Spa), ("et", Lang::Est), ("fa", Lang::Pes), ("fi", Lang::Fin), ("fr", Lang::Fra),
    ("gu", Lang::Guj), ("he", Lang::Heb), ("hi", Lang::Hin), ("hr", Lang::Hrv), ("hu", Lang::Hun),
    ("hy", Lang::Hye), ("id", Lang::Ind), ("it", Lang::Ita), ("ja", Lang::Jpn), ("jv", Lang::Jav),
    ("ka", Lang::Kat), ("km", Lang::Khm), ("kn", Lang::Kan), ("ko", Lang::Kor), ("la", Lang::Lat),
    ("lt", Lang::Lit), ("lv", Lang::Lav), ("mk", Lang::Mkd), ("ml", Lang::Mal), ("mr", Lang::Mar),
    ("my", Lang::Mya), ("nb", Lang::Nob), ("ne", Lang::Nep), ("nl", Lang::Nld), ("or", Lang::Ori),
    ("pa", Lang::Pan), ("pl", Lang::Pol), ("pt", Lang::Por), ("ro", Lang::Ron), ("ru", Lang::Rus),
    ("si", Lang::Sin), ("sk", Lang::Slk), ("sl", Lang::Slv), ("sn", Lang::Sna), ("sr", Lang::Srp),
    ("sv", Lang::Swe), ("ta", Lang::Tam), ("te", Lang::Tel), ("th", Lang::Tha), ("tk", Lang::Tuk),
    ("tl", Lang::Tgl),    ("tr", Lang::Tur), ("uk", Lang::Ukr), ("ur", Lang::Urd), ("uz", Lang::Uzb), ("vi", Lang::Vie),
    ("yi", Lang::Yid), ("zh", Lang::Cmn), ("zu", Lang::Zul),
];

/// The language of a text among these, where the text is long enough to tell.
pub(crate) fn of_text(text: &str, languages: &[Language]) -> Option<DetectedLanguage> {
    let possible = languages.iter().filter_map(|language| {
        let same = |(code, _): &&(&str, Lang)| *code == language.code();
        LANGUAGES.iter().find(same)
    });
    let possible: Vec<(&str, Lang)> = possible.copied().collect();
    let detector = Detector::with_allowlist(possible.iter().map(|(_, lang)| *lang).collect());
    let found = detector.detect(text)?;
    // A script of one language is told whatever is allowed.
    let (code, _) = possible.iter().find(|(_, lang)| *lang == found.lang())?;
    (found.confidence() >= LEAST_CONFIDENCE).then(|| DetectedLanguage {
        language: (*code).to_owned(),
        probability: found.confidence() as f32,
        source: LanguageSource::Text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language::Released;

    fn told(text: &str) -> Option<String> {
        let found = of_text(text, &Released::Streams.languages())?;
        assert_eq!(found.source, LanguageSource::Text);
        assert!((LEAST_CONFIDENCE as f32..=1.0).contains(&found.probability));
        Some(found.language)
    }

    #[test]
    fn a_few_sentences_tell_their_language() {
        for (language, text) in [
            ("ar", "صباح الخير جميعا ومرحبا بكم في الاجتماع"),
            (
                "de",
                "Die Kinder spielen draußen im Garten. Wir müssen das bis Freitag machen.",
            ),
            (
                "en",
                "I would like to order a coffee please. Where is the next train station?",
            ),
            (
                "es",
                "Los niños están jugando afuera. Tenemos que terminar esto el viernes.",
            ),
            (
                "fr",
                "Les enfants jouent dehors dans le jardin. Nous devons finir cela.",
            ),
            ("hi", "सभी को सुप्रभात और बैठक में आपका स्वागत है।"),
            (
                "it",
                "Non ha mai detto niente dei soldi. Vorrei ordinare un caffè per favore.",
            ),
            ("ja", "皆さん、おはようございます。会議へようこそ。"),
            ("ko", "여러분 안녕하세요 회의에 오신 것을 환영합니다"),
            (
                "nl",
                "Ze vertelde me dat het morgen zou gaan regenen. Dat lijkt me een goed idee.",
            ),
            (
                "pt",
                "As crianças estão brincando lá fora. Onde fica a próxima estação?",
            ),
            ("ru", "Доброе утро всем и добро пожаловать на встречу."),
            ("zh", "大家早上好，欢迎参加会议。"),
        ] {
            assert_eq!(told(text).as_deref(), Some(language), "{text}");
        }
    }

    #[test]
    fn what_does_not_tell_is_not_guessed() {
        for text in ["", " ", "1 2 3", "...", "six", "a", "taxi hotel"] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn only_languages_of_the_model_are_told() {
        let greek = "Καλημέρα σε όλους και καλώς ήρθατε στη συνάντηση.";
        assert_eq!(told(greek), None);
        let language = |code: &str| code.parse::<Language>().unwrap();
        let found = of_text(greek, &[language("en"), language("el")]).unwrap();
        assert_eq!(found.language, "el");
        assert_eq!(of_text("Good morning everybody.", &[]), None);
    }

    #[test]
    fn every_code_is_one_of_the_standard() {
        assert!(LANGUAGES.is_sorted_by_key(|(code, _)| *code));
        for (code, _) in LANGUAGES {
            code.parse::<Language>().unwrap();
        }
    }
}
