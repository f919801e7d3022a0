//! The near word for a misspelt one.

/// The one of `words` that is nearest to `word`, if it is near: about a third of its letters differ at the most.
pub(crate) fn near<'a>(word: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = ((word.chars().count() + 1) / 3).max(1);
    let (distance, nearest) =
        words.into_iter().map(|other| (distance(word, other), other)).min_by_key(|(d, _)| *d)?;
    (distance <= limit).then_some(nearest)
}

/// Letters to add, take away or change to get from one word to the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_near_word_only() {
        assert_eq!(near("nods", ["seed", "nodes", "shards"]), Some("nodes"));
        assert_eq!(near("crahs", ["crash", "cut"]), Some("crash"));
        assert_eq!(near("banana", ["crash", "cut"]), None);
        assert_eq!(near("x", []), None);
    }
}
