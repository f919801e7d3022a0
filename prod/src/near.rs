//! What was meant: the nearest known word to one that is not known.

/// The known word that is nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| strsim::jaro_winkler(&word, &candidate.to_lowercase());
    known
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// The end of an error's sentence: what was meant, or all that is known.
pub fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => {
            let known: Vec<String> = known.into_iter().map(|k| format!("`{k}`")).collect();
            format!("known are {}", known.join(", "))
        }
    }
}

/// What serde says of a field or word that is not known, ``unknown field `x`, expected …``, with what was meant in the place of
/// all that is known.
pub fn unknown(message: &str) -> Option<String> {
    let (what, known) =
        message.split_once(", expected ").filter(|_| message.starts_with("unknown "))?;
    let word = what.split('`').nth(1)?;
    // Between the quotes stand the words.
    let near = nearest(word, known.split('`').skip(1).step_by(2))?;
    Some(format!("{what}: did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["listen", "connections_max", "disk_segment_bytes"];

    #[test]
    fn a_slip_is_seen_and_a_guess_is_not_made() {
        assert_eq!(nearest("lisen", KNOWN), Some("listen"));
        assert_eq!(nearest("conections", KNOWN), Some("connections_max"));
        assert_eq!(nearest("Disk_segment_bites", KNOWN), Some("disk_segment_bytes"));
        assert_eq!(nearest("qqq", KNOWN), None);
        assert_eq!(hint("lisen", KNOWN), "did you mean `listen`?");
        assert!(hint("qqq", KNOWN).starts_with("known are `listen`, "));
    }

    #[test]
    fn serde_is_helped_out() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Told {
            _max_retries: Option<u32>,
            _buffer_max: Option<u32>,
        }
        let error = |json: &str| serde_json::from_str::<Told>(json).unwrap_err().to_string();
        let slip = unknown(&error(r#"{"_max_retry":1}"#)).unwrap();
        assert_eq!(slip, "unknown field `_max_retry`: did you mean `_max_retries`?");
        assert_eq!(unknown(&error(r#"{"qqq":1}"#)), None);
        assert_eq!(unknown(&error("[")), None);
    }
}
