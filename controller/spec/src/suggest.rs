//! "Did you mean": the known name nearest to a misspelt one, by the measure that Python's `difflib`
//! uses, so that suggestions are SkyPilot's.

/// Longest name that a suggestion is looked for; the measure takes cubic time.
const NAME_CHARS_MAX: usize = 64;

/// How alike two names must be, from 0 to 1.
const SIMILARITY_MIN: f64 = 0.6;

/// The best of `known` that is like `name`.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.chars().count() > NAME_CHARS_MAX {
        return None;
    }
    let rated = known.iter().map(|candidate| (similarity(candidate, name), *candidate));
    let alike = rated.filter(|(similarity, _)| *similarity >= SIMILARITY_MIN);
    alike.max_by(|left, right| left.0.total_cmp(&right.0).then(left.1.cmp(right.1))).map(|(_, candidate)| candidate)
}

/// Twice the characters in common over all characters (Ratcliff and Obershelp).
fn similarity(left: &str, right: &str) -> f64 {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let length = left.len() + right.len();
    if length == 0 { 1.0 } else { 2.0 * in_common(&left, &right) as f64 / length as f64 }
}

/// The length of the longest common run, and of what is in common on either side of it.
fn in_common(left: &[char], right: &[char]) -> usize {
    let (mut start_left, mut start_right, mut longest) = (0, 0, 0);
    for i in 0..left.len() {
        for j in 0..right.len() {
            let run = left[i..].iter().zip(&right[j..]).take_while(|(a, b)| a == b).count();
            if run > longest {
                (start_left, start_right, longest) = (i, j, run);
            }
        }
    }
    if longest == 0 {
        return 0;
    }
    longest
        + in_common(&left[..start_left], &right[..start_right])
        + in_common(&left[start_left + longest..], &right[start_right + longest..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_known_name_is_suggested_and_a_far_one_is_not() {
        let known = ["replicas", "readiness_probe", "replica_policy", "ports", "spot_placer"];
        assert_eq!(nearest("replica", &known), Some("replicas"));
        assert_eq!(nearest("readines_probe", &known), Some("readiness_probe"));
        assert_eq!(nearest("spot_policy", &known), Some("spot_placer"));
        assert_eq!(nearest("qqqq", &known), None);
        assert_eq!(nearest(&"replicas".repeat(100), &known), None);
    }
}
